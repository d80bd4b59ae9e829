// SPDX-License-Identifier: Apache-2.0
import { createLogger } from '../base/log.js';
import { readStatus, waitIdle } from '../engine/control-client.js';
import { durationOption, parseOptions, verbosityOption } from './arguments.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { jobNameFrom } from './job-name.js';

const OPTIONS = {
  timeout: { type: 'string', short: 't' },
  container: { type: 'string', short: 'n' },
  verbose: { type: 'boolean', short: 'v', multiple: true },
} as const;

export const waitCommand: Command = {
  name: 'wait',
  summary: 'Wait for a checkpoint or restore to finish',
  help: `Usage: fastfreeze wait [OPTIONS] [NAME]

Returns when the job neither checkpoints nor restores.

Options:
  -t, --timeout SECONDS      fail after so long; decimals and 5m, 1h are allowed
  -n, --container NAME       the job, when several run
  -v, --verbose              say what the job is doing, before and after

Exit status:
    0  the application runs
  170  no such job, or not done in time
    2  the command line is wrong
`,
  async run(args) {
    const parsed = parseOptions(args, OPTIONS, false);
    const name = jobNameFrom(parsed);
    const log = createLogger({ command: 'wait', verbosity: verbosityOption(parsed) });
    const tell = async (): Promise<void> => {
      if (log.verbosity === 0) return;
      // It may end at any moment: what is said besides must not change how this command ends.
      const job = await readStatus(name).catch(() => undefined);
      if (job !== undefined) log.debug(`${job.name} is ${job.state}`);
    };
    await tell();
    await waitIdle(name, durationOption(parsed, 'timeout'));
    await tell();
    return EXIT.ok;
  },
};
