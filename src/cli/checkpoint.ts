// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { createLogger } from '../base/log.js';
import { readStatus, requestCheckpoint } from '../engine/control-client.js';
import type { CheckpointRequest, CheckpointResult, Progress } from '../engine/config.js';
import { checkpointEvent } from '../engine/metrics/event.js';
import { createMetrics } from '../engine/metrics/metrics.js';
import { criuOptions } from '../criu/options.js';
import { createProgressLine } from '../engine/progress-line.js';
import { foreignCommands, refuseForeignCommand } from '../store/foreign-commands.js';
import { countOption, cpuBudgetOption, flagOption, parseOptions, textOption, verbosityOption } from './arguments.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { jobNameFrom } from './job-name.js';
import { passphraseOption } from './passphrase.js';
import { preserveOption } from './preserve.js';

const OPTIONS = {
  'image-url': { type: 'string', short: 'i' },
  'leave-running': { type: 'boolean' },
  'num-shards': { type: 'string' },
  'cpu-budget': { type: 'string' },
  'passphrase-file': { type: 'string' },
  'allow-inexact': { type: 'boolean' },
  'preserve-path': { type: 'string', multiple: true },
  'preserve-open-files': { type: 'boolean' },
  'carry-mapped': { type: 'boolean' },
  container: { type: 'string', short: 'n' },
  json: { type: 'boolean' },
  verbose: { type: 'boolean', short: 'v', multiple: true },
} as const;

export const checkpointCommand: Command = {
  name: 'checkpoint',
  summary: 'Freeze the running application into its image',
  help: `Usage: fastfreeze checkpoint [OPTIONS] [NAME]

Freezes the application of the running job into its image. It is stopped once
the image is durable, unless --leave-running. If anything fails the application
runs on and the previous image stays. Ending this command before the commit
(Ctrl-C) calls the checkpoint off.

Options:
      --leave-running        let the application run on
  -i, --image-url URL        another place than the one given to run
      --num-shards N         objects written in parallel [as run]
      --cpu-budget B         low (no compression), medium (lz4), high (zstd) [as run]
      --passphrase-file FILE encrypt with this passphrase from now on, not with that
                             of run (or FF_PASSPHRASE)
      --preserve-path PATH   take this file or directory along from now on, beside those
                             that run was given (several with : or by repeating)
      --preserve-open-files  take along what the application has open for writing
      --carry-mapped         take along the programs, libraries and data that it only reads
      --allow-inexact        save also what CRIU would bring back changed, with a warning
  -n, --container NAME       the job, when several run
      --json                 print the result as JSON on standard output
  -v, --verbose              name each object that was written, its size and rate

Environment:
  CRIU_OPTS                  further options for CRIU, after those that run was given
  FF_PASSPHRASE              instead of --passphrase-file: the passphrase itself
  FF_METRICS_RECORDER        a program that gets the checkpoint's events as JSON, where
                             run was given none (docs/metrics.md)
  S3_CMD, GS_CMD             of FastFreeze: refused with such a URL, since no command is
                             run to reach a bucket

Exit status:
    0  the checkpoint is durable
  170  it failed; the application runs on
    2  the command line is wrong
`,
  async run(args) {
    const parsed = parseOptions(args, OPTIONS, false);
    const url = textOption(parsed, 'image-url');
    const budget = cpuBudgetOption(parsed);
    const passphrase = passphraseOption(parsed);
    const preserve = preserveOption(parsed);
    const preserves = preserve.openFiles || preserve.paths.length > 0;
    const name = jobNameFrom(parsed);
    await refuseForeignVariables(name, url);
    const criu = criuOptions(process.env['CRIU_OPTS']);
    const line = createProgressLine();
    const result = await requestAndTell(
      name,
      {
        leaveRunning: flagOption(parsed, 'leave-running'),
        source: 'checkpoint command',
        ...(url === undefined ? {} : { imageUrl: url }),
        ...(textOption(parsed, 'num-shards') === undefined
          ? {}
          : { numShards: countOption(parsed, 'num-shards', 4, 1) }),
        ...(passphrase === undefined ? {} : { passphrase }),
        ...(budget === undefined ? {} : { cpuBudget: budget }),
        ...(preserves || preserve.mapped ? { preserve } : {}),
        ...(flagOption(parsed, 'allow-inexact') ? { allowInexact: true } : {}),
        ...(criu.length === 0 ? {} : { criuOptions: criu }),
      },
      line.show,
    ).finally(() => line.clear());
    if (passphrase !== undefined && !result.encrypted) throw notEncrypted(result.imageUrl);
    if (preserves && !result.files) throw notPreserved(result.imageUrl, '--preserve-path');
    if (preserve.mapped && !result.carried) throw notPreserved(result.imageUrl, '--carry-mapped');
    const log = createLogger({ command: 'checkpoint', verbosity: verbosityOption(parsed) });
    for (const [i, { sizeBytes, durationMs }] of result.shards.entries()) {
      const mib = sizeBytes / 1048576;
      const rate = (mib / Math.max(durationMs / 1000, 0.001)).toFixed(1);
      log.debug(`shard ${i + 1}: ${mib.toFixed(1)} MiB in ${(durationMs / 1000).toFixed(3)} s (${rate} MiB/s)`);
    }
    for (const advice of result.advice) process.stderr.write(`Note: ${advice}\n`);
    if (flagOption(parsed, 'json')) process.stdout.write(`${JSON.stringify(result)}\n`);
    else {
      const mib = (result.rawBytes / 1048576).toFixed(1);
      const stored = (result.storedBytes / 1048576).toFixed(1);
      process.stderr.write(
        `Checkpoint to ${result.imageUrl} complete: generation ${result.generation}, ${mib} MiB (${stored} MiB stored), ` +
          `frozen ${(result.frozenMs / 1000).toFixed(3)} s, durable after ${(result.durableMs / 1000).toFixed(3)} s\n`,
      );
    }
    return EXIT.ok;
  },
};

/** The job reaches its bucket by the environment of `run`: what is set for this command alone would not be asked. */
async function refuseForeignVariables(name: string | undefined, url: string | undefined): Promise<void> {
  if (foreignCommands(process.env).length === 0) return;
  refuseForeignCommand(url ?? (await readStatus(name)).imageUrl, process.env);
}

/** Where `run` has a metrics recorder it tells of this checkpoint too; else ours, when there is one, does. */
async function requestAndTell(
  name: string | undefined,
  request: CheckpointRequest,
  progress: (p: Progress) => void,
): Promise<CheckpointResult> {
  const startedAtMs = Date.now();
  const recorder = process.env['FF_METRICS_RECORDER'] ?? '';
  // A job that is too busy to answer is no reason not to freeze it.
  const job = recorder === '' ? undefined : await readStatus(name).catch(() => undefined);
  const ask = (): Promise<CheckpointResult> => requestCheckpoint(name, request, progress, { untilExit: true });
  if (job?.recordsMetrics !== false) return await ask();
  const metrics = createMetrics({
    recorder,
    jobName: job.name,
    cliArgs: ['fastfreeze', ...process.argv.slice(2)],
    startedAtMs,
    warn: (message) => process.stderr.write(`Warning: ${message}\n`),
  });
  try {
    metrics.emit({ action: 'checkpoint_start', imageUrl: request.imageUrl ?? job.imageUrl });
    return await metrics.timed(ask, (outcome, result) =>
      result === undefined ? { action: 'checkpoint', ...outcome } : checkpointEvent(result),
    );
  } finally {
    await metrics.finish();
  }
}

/** The job was started by a version that does not know passphrases, and has taken no notice of ours. */
function notEncrypted(url: string): FastFreezeError {
  return new FastFreezeError({
    code: 'key',
    op: 'encrypt the checkpoint to',
    subject: url,
    reason: 'the job was started by an older fastfreeze, and the image is there, but not encrypted',
    hint: 'remove it, and start the job again with --passphrase-file',
  });
}

/** Likewise for files. */
function notPreserved(url: string, option: string): FastFreezeError {
  return new FastFreezeError({
    code: 'unsupported',
    op: 'preserve files in',
    subject: url,
    reason: 'the job was started by an older fastfreeze, and the image is there, but without files',
    hint: `start the job again with ${option}`,
  });
}
