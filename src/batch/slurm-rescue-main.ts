// SPDX-License-Identifier: Apache-2.0
/* Entry of the process that finishes what the end of a job has cut, in the job's environment. Its argument is the folder that the job left. */
import { asFastFreezeError } from '../base/errors.js';
import { createLogger } from '../base/log.js';
import { readDrop } from './slurm-drop.js';
import { rescueHere } from './slurm-rescue.js';

const log = createLogger({ command: 'rescue', verbosity: 0 });
try {
  const drop = readDrop(process.argv[2] ?? '');
  if (drop !== undefined) await rescueHere(drop, log);
} catch (error) {
  const known = asFastFreezeError(error, 'finish what the end of the job has cut');
  log.error(known.message, known.hint);
  process.exitCode = 1;
}
