// SPDX-License-Identifier: Apache-2.0
import { basename, resolve } from 'node:path';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import { type LogFormat, createLogger } from '../base/log.js';
import { CPU_MASK, wrongPatterns } from '../container/app-env.js';
import { type CpuWish, MASK_NAMES, parseCpuBaseline, parseCpuMask } from '../container/cpu-baseline.js';
import { commandSha256 } from '../engine/command-mark.js';
import type { Pilot } from '../engine/pilot.js';
import { type RunHooks, type RunOptions, type RunOutcome, run } from '../engine/run.js';
import { signalNumber } from '../linux/process.js';
import { letGoOfDeadTerminals } from '../linux/terminal.js';
import { createPilot } from '../notice/pilot.js';
import { jobUrl, lastName } from '../store/job-url.js';
import {
  type ParsedArguments,
  countOption,
  cpuBudgetOption,
  durationOption,
  flagOption,
  logFormatOption,
  parseOptions,
  textOption,
  verbosityOption,
  wrongValue,
} from './arguments.js';
import type { Command } from './command.js';
import { EXIT } from './exit-codes.js';
import { notifyOption } from './notify.js';
import { passphraseOption } from './passphrase.js';
import { exceptOption, preserveOption } from './preserve.js';

/** Those of `run`, which `batch run` has as well. */
export const RUN_OPTIONS = {
  'image-url': { type: 'string', short: 'i' },
  'image-base': { type: 'string' },
  'job-id': { type: 'string' },
  'no-restore': { type: 'boolean' },
  generation: { type: 'string' },
  'allow-bad-image-version': { type: 'boolean' },
  'leave-stopped': { type: 'boolean' },
  'tcp-listen-remap': { type: 'string', multiple: true },
  'allow-inexact': { type: 'boolean' },
  'checkpoint-every': { type: 'string' },
  'mean-time-to-preemption': { type: 'string' },
  'checkpoint-on': { type: 'string', multiple: true },
  keep: { type: 'string' },
  'num-shards': { type: 'string' },
  'cpu-budget': { type: 'string' },
  container: { type: 'string', short: 'n' },
  'no-container': { type: 'boolean' },
  'on-app-ready': { type: 'string' },
  'lease-ttl': { type: 'string' },
  'lease-wait': { type: 'string' },
  'strict-lease': { type: 'boolean' },
  'force-lease': { type: 'boolean' },
  spool: { type: 'string' },
  'passphrase-file': { type: 'string' },
  'require-time-virtualization': { type: 'boolean' },
  'scrub-env': { type: 'string', multiple: true },
  'preserve-path': { type: 'string', multiple: true },
  'preserve-open-files': { type: 'boolean' },
  'preserve-except': { type: 'string', multiple: true },
  'preserve-setuid': { type: 'boolean' },
  'carry-mapped': { type: 'boolean' },
  'cpu-baseline': { type: 'string' },
  output: { type: 'string', short: 'o' },
  error: { type: 'string', short: 'e' },
  'log-format': { type: 'string' },
  'metrics-file': { type: 'string' },
  'notify-fd': { type: 'string' },
  verbose: { type: 'boolean', short: 'v', multiple: true },
} as const;

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

/** `--checkpoint-every auto`. */
export function isAuto(parsed: ParsedArguments): boolean {
  return textOption(parsed, 'checkpoint-every') === 'auto';
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

/** `image` is where the image is, and whether the caller said so. */
export function toRunOptions(parsed: ParsedArguments, image: ImageUrl): RunOptions {
  const command = parsed.rest;
  if (command[0] === '') throw wrongCommand();
  const { url, given } = image;
  const optional = <K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> =>
    value === undefined ? {} : ({ [key]: value } as Record<K, V>);
  const generation =
    textOption(parsed, 'generation') === undefined ? undefined : countOption(parsed, 'generation', 1, 1);
  return {
    jobName: jobName(parsed, url),
    imageUrl: url,
    imageUrlGiven: given,
    command,
    noRestore: flagOption(parsed, 'no-restore'),
    returnFinished: false,
    ...optional('generation', generation),
    allowBadImageVersion: flagOption(parsed, 'allow-bad-image-version'),
    leaveStopped: flagOption(parsed, 'leave-stopped'),
    listenPorts: listenPortsOption(parsed),
    allowInexact: flagOption(parsed, 'allow-inexact'),
    ...optional('checkpointEveryMs', isAuto(parsed) ? undefined : durationOption(parsed, 'checkpoint-every')),
    checkpointOnSignals: signalsOption(parsed),
    keep: countOption(parsed, 'keep', 2, 1),
    numShards: countOption(parsed, 'num-shards', 4, 1),
    cpuBudget: cpuBudgetOption(parsed) ?? 'medium',
    container: !flagOption(parsed, 'no-container'),
    ...optional('onAppReady', textOption(parsed, 'on-app-ready')),
    ...optional('spoolDirectory', absolute(textOption(parsed, 'spool'))),
    preserve: preserveOption(parsed),
    preserveExcept: exceptOption(parsed),
    preserveSetuid: flagOption(parsed, 'preserve-setuid'),
    ...optional('outputPath', absolute(textOption(parsed, 'output'))),
    ...optional('passphrase', passphraseOption(parsed)),
    requireTimeVirtualization: flagOption(parsed, 'require-time-virtualization'),
    scrubEnvironment: scrubOption(parsed),
    ...optional('cpuWish', cpuWish(parsed)),
    ...optional('errorPath', absolute(textOption(parsed, 'error'))),
    leaseTtlMs: leaseTtl(parsed),
    ...optional('leaseWaitMs', durationOption(parsed, 'lease-wait', 0)),
    strictLease: flagOption(parsed, 'strict-lease'),
    forceLease: flagOption(parsed, 'force-lease'),
    ...optional('metricsPath', absolute(textOption(parsed, 'metrics-file'))),
    cliArgs: ['fastfreeze', ...process.argv.slice(2)],
    verbosity: verbosityOption(parsed),
    logFormat: logFormatOption(parsed),
  };
}

export interface ImageUrl {
  readonly url: string;
  readonly given: boolean;
}

function imageUrl(parsed: ParsedArguments): ImageUrl {
  const url = textOption(parsed, 'image-url');
  const base = textOption(parsed, 'image-base');
  const id = textOption(parsed, 'job-id');
  if (url !== undefined) {
    if (base !== undefined || id !== undefined) {
      throw wrongValue('image-url', url, 'give either --image-url, or --image-base with --job-id');
    }
    return { url, given: true };
  }
  if (base !== undefined || id !== undefined) {
    if (base === undefined || id === undefined || id === '') {
      throw wrongValue('job-id', id ?? '', '--image-base and --job-id go together');
    }
    return { url: jobUrl(base, id), given: true };
  }
  return { url: defaultUrl(parsed.rest), given: false };
}

/** `file:$HOME/.fastfreeze/NAME`, with a mark of the whole command line when it has arguments. */
function defaultUrl(command: readonly string[]): string {
  const home = process.env['HOME'] ?? '';
  const [program] = command;
  if (program === undefined) {
    throw new FastFreezeError({
      code: 'usage',
      op: 'run',
      reason: 'there is neither a command to start nor an image URL to restore from',
      hint: 'fastfreeze run --image-url URL -- COMMAND',
    });
  }
  if (home === '') {
    throw new FastFreezeError({
      code: 'usage',
      op: 'choose an image URL',
      reason: 'HOME is not set, and no --image-url is given',
      hint: 'give --image-url',
    });
  }
  const mark = commandSha256(command).slice(0, 4);
  const name = command.length > 1 ? `${basename(program)}-${mark}` : basename(program);
  return `file:${encodeURI(resolve(home, '.fastfreeze', name))}`;
}

function jobName(parsed: ParsedArguments, url: string): string {
  const given = textOption(parsed, 'container');
  const name = given ?? lastName(url);
  if (name === '' || name.length > 100 || name.includes('/') || name.includes('\0')) {
    throw wrongValue('container', name, 'a name of 1 to 100 characters without / is needed');
  }
  return name;
}

function signalsOption(parsed: ParsedArguments): number[] {
  const given = parsed.values['checkpoint-on'];
  const names = signalNames('checkpoint-on', (Array.isArray(given) ? given : []).join(','));
  return names.flatMap((name) => signalNumber(name) ?? []);
}

/** A list of signals that can be caught, with or without SIG, as their full names. */
export function signalNames(option: string, list: string): NodeJS.Signals[] {
  return list
    .split(',')
    .filter((word) => word !== '')
    .map((word) => {
      const upper = word.toUpperCase();
      if (signalNumber(upper) === undefined || upper.endsWith('KILL') || upper.endsWith('STOP')) {
        throw wrongValue(option, word, 'expected names of signals that can be caught, such as SIGINT,SIGTERM');
      }
      return (upper.startsWith('SIG') ? upper : `SIG${upper}`) as NodeJS.Signals;
    });
}

function scrubOption(parsed: ParsedArguments): string[] {
  const given = parsed.values['scrub-env'];
  const patterns = Array.isArray(given) ? given.map(String) : [];
  const [wrong] = wrongPatterns(patterns);
  if (wrong === undefined) return patterns;
  throw wrongValue('scrub-env', wrong, "expected the name of a variable, such as AWS_SECRET_ACCESS_KEY or 'AWS_*'");
}

function listenPortsOption(parsed: ParsedArguments): [number, number][] {
  const given = parsed.values['tcp-listen-remap'];
  const pairs = (Array.isArray(given) ? given.map(String) : []).flatMap((one) => one.split(','));
  const ports = pairs.map((pair): [number, number] => {
    const [from, to] = pair.split(':').map(Number);
    const fits = [from, to].every((port) => port !== undefined && Number.isInteger(port) && port > 0 && port < 65536);
    if (!/^\d+:\d+$/.test(pair) || !fits) {
      throw wrongValue('tcp-listen-remap', pair, 'expected OLD:NEW, ports from 1 to 65535, such as 8080:18080');
    }
    return [from ?? 0, to ?? 0];
  });
  const twice = ports.find(([from], i) => ports.findIndex(([other]) => other === from) !== i);
  if (twice === undefined) return ports;
  throw wrongValue('tcp-listen-remap', twice.join(':'), `port ${twice[0]} is named twice`);
}

/** Undefined when neither the option nor the variable is given. A folder's `fleet:FILE` is that of the caller. */
function cpuWish(parsed: ParsedArguments): CpuWish | undefined {
  const text = textOption(parsed, 'cpu-baseline');
  const masked = parseCpuMask(process.env[CPU_MASK] ?? '');
  if (text === undefined) return masked.length === 0 ? undefined : { baseline: { kind: 'host' }, masked };
  const baseline = parseCpuBaseline(text);
  if (baseline === undefined) {
    throw wrongValue('cpu-baseline', text, 'expected x86-64-v2, x86-64-v3, x86-64-v4, host or fleet:FILE');
  }
  return { baseline: baseline.kind === 'fleet' ? { ...baseline, path: resolve(baseline.path) } : baseline, masked };
}

function leaseTtl(parsed: ParsedArguments): number {
  const ttlMs = durationOption(parsed, 'lease-ttl') ?? DEFAULT_LEASE_TTL_MS;
  if (ttlMs >= MIN_LEASE_TTL_MS && ttlMs <= MAX_LEASE_TTL_MS) return ttlMs;
  throw wrongValue('lease-ttl', textOption(parsed, 'lease-ttl') ?? '', 'expected 3s to 1h');
}

const DEFAULT_LEASE_TTL_MS = 30_000;
/** A renewal is due every third of it, and a service may take a second for one. */
const MIN_LEASE_TTL_MS = 3_000;
const MAX_LEASE_TTL_MS = 3_600_000;

function absolute(path: string | undefined): string | undefined {
  return path === undefined ? undefined : resolve(path);
}

function wrongCommand(): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'run',
    reason: 'the command is an empty word',
    hint: 'fastfreeze run -- COMMAND',
  });
}
