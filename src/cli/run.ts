// SPDX-License-Identifier: Apache-2.0
import { type FastFreezeError, asFastFreezeError } from '../base/errors.js';
import { type LogFormat, createLogger } from '../base/log.js';
import { CPU_MASK } from '../container/app-env.js';
import { MASK_NAMES } from '../container/cpu-baseline.js';
import { EXIT } from '../engine/exit-codes.js';
import type { Pilot } from '../engine/pilot.js';
import { type RunHooks, type RunOptions, type RunOutcome, run } from '../engine/run.js';
import { letGoOfDeadTerminals } from '../linux/terminal.js';
import { createPilot } from '../notice/pilot.js';
import { type ParsedArguments, durationOption, ownWords, parseOptions, textOption, wrongValue } from './arguments.js';
import type { Command } from './command.js';
import { notifyOption } from './notify.js';
import { RUN_OPTIONS, imageUrl, isAuto, toRunOptions } from './run-options.js';

export const runCommand: Command = {
  name: 'run',
  summary: 'Run an application; continue it when a checkpoint of it exists',
  help: `Usage: fastfreeze run [OPTIONS] [--] COMMAND [ARGS...]

Runs COMMAND. If the image URL holds a checkpoint, the application continues from
it instead; the command line can therefore be repeated until the job is done.
Without COMMAND, an image is restored or nothing runs.

Where the image is:
  -i, --image-url URL        file:/path, s3://BUCKET/PATH, gs://BUCKET/PATH, or
                             cache:NAME in a step of a GitHub Action (docs/cache.md)
                             (default: file:$HOME/.fastfreeze/NAME)
      --image-base URL       with --job-id ID: the image URL is URL/ID
      --job-id ID            one name, taken literally: any character but / and
                             control characters, not . or ..
      --no-restore           start from scratch, whatever the URL holds
      --generation N         restore this generation, not the newest
      --allow-bad-image-version
                             try an image of another format version
      --keep N               generations to keep after a checkpoint [2]
      --passphrase-file FILE encrypt images with the passphrase in FILE, and decrypt
                             with it (or FF_PASSPHRASE)

Checkpoints:
      --checkpoint-every D   leave-running checkpoint every 90s, 5m, 1h30m...; auto: as
                             often as loses least, by what they are measured to cost
                             (docs/planner.md)
      --mean-time-to-preemption D
                             for auto: how long machines last on average [6h]
      --spool DIR            make images durable in DIR first; the application is
                             let go then, and the copy to the URL goes on by itself
      --checkpoint-on SIGS   signals (SIGINT,SIGTERM) that freeze the application
                             and exit, instead of reaching it; on a terminal
                             Ctrl-C counts as SIGINT
      --num-shards N         objects written in parallel [4]
      --cpu-budget B         low (no compression), medium (lz4), high (zstd) [medium]

Files of the application that travel in the image (checkpoints take them along too):
      --preserve-path PATH   a file or a directory with all below it; several with : or by
                             repeating. A restore makes it what it was: what was not there
                             is set aside, in .fastfreeze-set-aside
      --preserve-except PATH what of them does not travel, and a restore leaves as it is;
                             several with : or by repeating
      --preserve-open-files  every regular file that the application has open for writing
      --preserve-setuid      let restored files have the setuid bits and capabilities that
                             the image says
      --carry-mapped         programs, libraries and data that it only reads: where a machine
                             has others, or none, the restored job alone (with CRIU and
                             its scripts) sees those of the image

One run at a time (README, "Two machines, one job"):
      --lease-wait D         how long to wait for another run of the job to end or
                             fall silent [twice --lease-ttl]; then exit 170
      --lease-ttl D          a run that is silent for so long is taken for dead [30s]
      --strict-lease         stop the application while the lease cannot be renewed,
                             and end it when another run has taken it
      --force-lease          take the lease from whoever has it

The application:
  -n, --container NAME       the job's name; needed when several run
      --no-container         use the container we are in
      --on-app-ready CMD     shell command to run once the application runs
  -o, --output FILE          its standard output, exact to the byte over restores
  -e, --error FILE           its standard error, likewise
      --require-time-virtualization
                             refuse to run where its monotonic and boot clocks would jump
                             at a restore
      --scrub-env PATTERN    leave variables of these names (* is any text) out of its
                             environment, as ACTIONS_* by default; !PATTERN lets names
                             through. Repeatable
      --cpu-baseline B       x86-64-v2, x86-64-v3, x86-64-v4, host (all of this machine)
                             or fleet:FILE (what all in FILE have): hide the rest of
                             the CPU from it, so that it can move (docs/cpu.md) [host]
      --leave-stopped        leave it stopped after a restore, for a debugger
      --tcp-listen-remap OLD:NEW
                             at a restore, what listened on TCP port OLD listens on NEW.
                             Repeatable
      --allow-inexact        go on, with a warning, where it would not continue exactly:
                             state that CRIU changes, files that it reads and that are
                             not what they were
      --log-format F         text, or json: one object a line on standard error [text]
      --metrics-file FILE    keep the job's numbers there, as OpenMetrics text
      --notify-fd N          write a JSON line to the open descriptor N when the
                             application runs, and one when it has ended
  -v, --verbose              say more; repeat for everything

Environment:
  FF_CRIU                    the CRIU to use
  CRIU_OPTS                  further options for CRIU
  FF_PASSPHRASE              instead of --passphrase-file: the passphrase itself
  FF_APP_PATH, FF_APP_LD_LIBRARY_PATH, FF_APP_INJECT_NAME
                             the application's PATH, LD_LIBRARY_PATH and NAME
  FF_APP_VIRT_CPUID_MASK     CPU features to hide in addition, as /proc/cpuinfo names
                             them, separated by commas; help lists them
  FF_METRICS_RECORDER        a program that gets every event as JSON (docs/metrics.md)
  FF_S3_*, FF_STORE_*        settings of s3: (README, "Images in S3")
  S3_CMD, GS_CMD             of FastFreeze: refused with such a URL, since no command is
                             run to reach a bucket
  FF_STATE_DIR, FF_LOG_DIR   where running jobs and logs are kept

Exit status:
  the application's own; 128+n when signal n ended it
  137  the application was stopped by a checkpoint; run the same command again
  170  something failed before the application was ready
  171  the image could not be fetched or restored; nothing runs
    2  the command line is wrong
`,
  ownWords: (args) => Promise.resolve(ownWords(args, RUN_OPTIONS)),
  async run(args) {
    const startedAtMs = Date.now();
    const parsed = parseOptions(args, RUN_OPTIONS, true);
    if (process.env[CPU_MASK] === 'help') {
      process.stdout.write(`${MASK_NAMES.join('\n')}\n`);
      return EXIT.ok;
    }
    return await runAndTell(parsed, startedAtMs, (parsed) => {
      const options = toRunOptions(parsed, imageUrl(parsed));
      const meanTimeToPreemptionMs = durationOption(parsed, 'mean-time-to-preemption');
      if (!isAuto(parsed)) {
        if (meanTimeToPreemptionMs === undefined) return { options };
        const given = textOption(parsed, 'mean-time-to-preemption') ?? '';
        throw wrongValue('mean-time-to-preemption', given, 'it goes with --checkpoint-every auto');
      }
      const pilot = createPilot({
        sources: [],
        stopSignals: [],
        timer: 'always',
        ...(meanTimeToPreemptionMs === undefined ? {} : { meanTimeToPreemptionMs }),
        log: createLogger({ command: 'run', verbosity: options.verbosity, format: options.logFormat, startedAtMs }),
      });
      return { options, pilot };
    });
  },
};

/** What is to be run, who decides when it is frozen, and what its exit code is to be for the caller. */
export interface RunPlan {
  readonly options: RunOptions;
  readonly pilot?: Pilot;
  readonly exitCode?: (outcome: RunOutcome) => number | Promise<number>;
}

/** Run a job to its end, and tell of it in the way that the command line asks for. Resolves to the exit code. */
export async function runAndTell(
  parsed: ParsedArguments,
  startedAtMs: number,
  plan: (parsed: ParsedArguments) => RunPlan,
): Promise<number> {
  process.once('exit', letGoOfDeadTerminals);
  const notify = notifyOption(parsed);
  try {
    const { options, pilot, exitCode } = plan(parsed);
    const hooks = { onReady: notify.ready, ...(pilot === undefined ? {} : { pilot }) };
    const isTold = options.logFormat === 'json' || exitCode !== undefined;
    const found = isTold ? await runOrTell(options, hooks) : await run(options, hooks);
    const outcome = exitCode === undefined ? found : { ...found, exitCode: await exitCode(found) };
    notify.ended(outcome);
    if (outcome.error !== undefined) tell(outcome.error, found.exitCode, options.logFormat, startedAtMs);
    return outcome.exitCode;
  } catch (error) {
    notify.ended(failure(error));
    throw error;
  }
}

/** Who reads JSON gets what fails before the job as JSON too, and who chooses exit codes all that there are. */
async function runOrTell(options: RunOptions, hooks: RunHooks): Promise<RunOutcome> {
  try {
    return await run(options, hooks);
  } catch (error) {
    return failure(error);
  }
}

function failure(error: unknown): RunOutcome & { error: FastFreezeError } {
  const known = asFastFreezeError(error, 'run');
  return { exitCode: known.code === 'usage' ? EXIT.usage : EXIT.failed, error: known };
}

function tell(error: FastFreezeError, exitCode: number, format: LogFormat, startedAtMs: number): void {
  const nothingRan = exitCode === EXIT.restoreFailed;
  const hint = error.hint ?? (nothingRan ? '--no-restore starts over' : undefined);
  if (format === 'json') {
    createLogger({ command: 'run', verbosity: 0, format, startedAtMs }).error(error.message, hint);
    return;
  }
  process.stderr.write(`Error: ${error.message}\n`);
  if (hint !== undefined) process.stderr.write(`Try: ${hint}\n`);
  if (nothingRan && !(hint ?? '').includes('--no-restore')) {
    process.stderr.write('Nothing was started. --no-restore starts the application from scratch.\n');
  }
}
