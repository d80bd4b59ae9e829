// SPDX-License-Identifier: Apache-2.0
/* Entry of the process that empties a spool after the job has gone. Its argument is the job as JSON. */
import { asFastFreezeError } from '../base/errors.js';
import { createLogger } from '../base/log.js';
import { type SpoolJob, emptySpool } from './spool.js';

const log = createLogger({ command: 'spool', verbosity: 0 });
try {
  const job = JSON.parse(process.argv[2] ?? '{}') as Omit<SpoolJob, 'log'>;
  await emptySpool({ ...job, log: (message) => log.info(message) });
} catch (error) {
  log.error(asFastFreezeError(error, 'empty the spool').message);
  process.exitCode = 1;
}
