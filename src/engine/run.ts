// SPDX-License-Identifier: Apache-2.0
import { fstatSync, mkdirSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { isatty } from 'node:tty';
import { fileURLToPath } from 'node:url';
import { FastFreezeError, asFastFreezeError, fromErrorRecord, toErrorRecord } from '../base/errors.js';
import { type Logger, createLogger } from '../base/log.js';
import { appEnvironment } from '../container/app-env.js';
import { type CpuRecord, type CpuWish, baselineName, chooseCpu } from '../container/cpu-baseline.js';
import { type Launched, containerFailure, launch, threadCount } from '../container/launch.js';
import type { OwnIds } from '../container/own-ids.js';
import { makeTemporaryDirectory, removeTemporaryDirectory } from '../container/temporary.js';
import { timeProblem } from '../container/time.js';
import { criuOptions } from '../criu/options.js';
import { findCriu } from '../criu/runtime/find.js';
import { isPrivileged } from '../criu/runtime/privilege.js';
import { removeUncommitted } from '../image/prune.js';
import { readCpuFlags } from '../linux/cpu-features.js';
import { unmapIdleCode } from '../linux/memory.js';
import { nodeCommand } from '../linux/node-command.js';
import { signalNumber } from '../linux/process.js';
import {
  isForegroundTerminal,
  rawSettings,
  readTerminalSettings,
  readWindowSize,
  writeTerminalSettings,
} from '../linux/terminal.js';
import { releaseQuietly } from '../store/lease/acquire.js';
import type { LeaseHolder } from '../store/lease/record.js';
import { thisRun } from '../store/lease/self.js';
import { isFileUrl, openStore } from '../store/store.js';
import {
  CHECKPOINTED,
  type JobOptions,
  type LauncherMessage,
  type SupervisorConfig,
  type SupervisorMessage,
} from './config.js';
import { readStatus, requestCheckpoint } from './control-client.js';
import { lineSplitter } from './control-protocol.js';
import { readLinger } from './linger.js';
import type { JobEvent, Outcome } from './metrics/event.js';
import { type Metrics, createMetrics } from './metrics/metrics.js';
import { ownIdsForRestore, ownIdsForStart } from './identity.js';
import type { Pilot } from './pilot.js';
import { JobHeldError, type PlanRequest, type Plan as StorePlan, makePlan } from './plan.js';
import { makePlanElsewhere } from './plan-process.js';
import { refuseCarrying, refuseOverlap } from './preserve.js';
import { emptySpoolInBackground } from './spool.js';
import { type JobDirectory, claimJob, logDirectory, releaseJob } from './state.js';

export interface RunOptions extends JobOptions {
  readonly noRestore: boolean;
  /** A job that has ended by itself in an earlier run is not started anew: its exit code is returned. */
  readonly returnFinished: boolean;
  /** A generation other than the newest. */
  readonly generation?: number;
  readonly outputPath?: string;
  readonly errorPath?: string;
  readonly passphrase?: string;
  /** What of our environment the application does not get; see `AppEnvironmentOptions`. */
  readonly scrubEnvironment: readonly string[];
  /** What an application that starts from scratch is to see of the CPU; by default all. */
  readonly cpuWish?: CpuWish;
  /** Refuse to run where clocks would jump at a restore. */
  readonly requireTimeVirtualization: boolean;
  /** The command line, for the metrics recorder. */
  readonly cliArgs: readonly string[];
  /** For how long a lease that is not renewed still keeps others out. */
  readonly leaseTtlMs: number;
  /** How long to wait for a lease that is held; twice its time to live by default. */
  readonly leaseWaitMs?: number;
  /** Stop the application while its lease may be lost, and end it when it is. */
  readonly strictLease: boolean;
  /** Take the lease from whoever has it. */
  readonly forceLease: boolean;
}

/** How `run` ended: the process's exit code, and the error to print when it was ours. */
export interface RunOutcome {
  readonly exitCode: number;
  readonly error?: FastFreezeError;
  /** How the application ended, in words; `checkpointed` when a checkpoint stopped it. */
  readonly reason?: string;
  /** The signal that the application died of: no end of its own, and the same command continues from the last image. */
  readonly killedBy?: string;
}

/** Called once the application runs; null: from scratch, else the generation that it continues. */
export type OnReady = (restoredGeneration: number | null) => void;

/** Who takes part in a run beside us. */
export interface RunHooks {
  readonly onReady?: OnReady;
  /** Told what the supervisor tells a metrics recorder: starts, checkpoints, restores. */
  readonly onEvent?: (event: JobEvent) => void;
  readonly pilot?: Pilot;
}

const FINISHED_BEFORE = 'the job finished in an earlier run';
const EXIT_USAGE = 2;
const EXIT_FAILED = 170;
const EXIT_RESTORE_FAILED = 171;
/** A batch system tells the processes of a job to leave one after the other: the application may end before we are told. */
const SIGNAL_GRACE_MS = 250;
/** From the supervisor's last word to the end of its container. */
const LEAVE_TIMEOUT_MS = 15_000;

/** Signals that a scheduler, a shell or a user may send to the job. The rest stop or end a process by themselves. */
const FORWARDED = [
  ...['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGTERM', 'SIGALRM', 'SIGVTALRM', 'SIGURG', 'SIGXCPU'],
  ...['SIGWINCH', 'SIGIO', 'SIGPWR', 'SIGCONT'],
] as const satisfies readonly NodeJS.Signals[];

/** Start the job or continue it, stay its process to the end, and mirror how it ended. */
export async function run(options: RunOptions, hooks: RunHooks = {}): Promise<RunOutcome> {
  const startedAtMs = Date.now();
  const signals = catchSignals();
  try {
    return await runAndTell(options, signals, startedAtMs, hooks);
  } finally {
    await hooks.pilot?.stop();
    signals.stop();
  }
}

/** How it went is told to the job's metrics, whatever it is. */
async function runAndTell(
  options: RunOptions,
  signals: CaughtSignals,
  startedAtMs: number,
  hooks: RunHooks,
): Promise<RunOutcome> {
  const log = createLogger({ command: 'run', verbosity: options.verbosity, format: options.logFormat, startedAtMs });
  const metrics = createMetrics({
    recorder: process.env['FF_METRICS_RECORDER'],
    ...(options.metricsPath === undefined ? {} : { filePath: options.metricsPath }),
    jobName: options.jobName,
    cliArgs: options.cliArgs,
    startedAtMs,
    warn: (message) => log.warn(message),
  });
  try {
    const outcome = await runWithSignals(options, signals, { log, metrics, startedAtMs, hooks });
    metrics.emit(runEvent(outcome, Date.now() - startedAtMs));
    return outcome;
  } catch (error) {
    const known = asFastFreezeError(error, 'run');
    const exitCode = known.code === 'usage' ? EXIT_USAGE : EXIT_FAILED;
    metrics.emit(runEvent({ exitCode, error: known }, Date.now() - startedAtMs));
    throw error;
  } finally {
    await metrics.finish();
  }
}

/** A checkpoint that stops the job is no failure of it, although its exit code is not 0. */
function runEvent({ exitCode, error, reason }: RunOutcome, durationMs: number): JobEvent {
  const failure = error?.message ?? (exitCode === 0 || reason === CHECKPOINTED ? undefined : reason);
  return { action: 'run', durationMs, exitCode, ...(failure === undefined ? {} : { error: failure }) };
}

/** What all of a run shares. */
interface Voice {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly startedAtMs: number;
  readonly hooks: RunHooks;
}

async function runWithSignals(options: RunOptions, signals: CaughtSignals, voice: Voice): Promise<RunOutcome> {
  const { log } = voice;
  log.debug(`Time is ${new Date().toUTCString()}, host is ${hostname()}`);
  // A URL that nothing can be kept under, a variable that nobody knows: mistakes of the caller's, not a failed restore.
  const { writeOnce } = openStore(options.imageUrl);
  if (writeOnce !== undefined) refuseLeaseOptions(options);
  refuseOverlap(options.preserve.paths, options.imageUrl);
  refuseCarrying(options.preserve, options.container);
  threadCount();
  appEnvironment({ env: process.env, scrub: options.scrubEnvironment, fakeRoot: false });
  if (!options.container) refuseBareMachine();
  lookAtTime(options, log);
  const job = claimJob(options.jobName);
  voice.metrics.begin();
  try {
    // The default URL is this machine's own, and there the job's name keeps others away.
    if (!options.imageUrlGiven || writeOnce !== undefined) {
      if (writeOnce !== undefined)
        log.info('A cache has no leases: of twins, the first that commits a checkpoint goes on');
      return await runPlanned(options, job, undefined, signals, voice);
    }
    const holder = thisRun(join(job.path, 'lock'), job.lockFd);
    let ended = false;
    try {
      const outcome = await runPlanned(options, job, holder, signals, voice);
      ended = outcome.error === undefined && outcome.reason !== FINISHED_BEFORE;
      return outcome;
    } finally {
      // A supervisor that came to its end in order has done so itself.
      if (!ended) await releaseQuietly(openStore(options.imageUrl), holder.id);
    }
  } finally {
    releaseJob(job);
  }
}

async function runPlanned(
  options: RunOptions,
  job: JobDirectory,
  holder: LeaseHolder | undefined,
  signals: CaughtSignals,
  voice: Voice,
): Promise<RunOutcome> {
  let plan: Plan;
  try {
    plan = await planAndTell(options, holder, signals, voice);
  } catch (error) {
    if (error instanceof FastFreezeError && error.code === 'aborted') throw error;
    const known = asFastFreezeError(error, 'fetch the image manifest');
    return { exitCode: error instanceof JobHeldError ? EXIT_FAILED : EXIT_RESTORE_FAILED, error: known };
  }
  if (options.returnFinished && plan.finished !== undefined) return finishedBefore(plan.finished.exitCode);
  if (plan.generation === undefined && options.command.length === 0) throw nothingToRun(options.imageUrl);
  const cpu = cpuOf(options, plan, voice.log);
  return await runSupervised(options, job, holder, { ...plan, ...(cpu === undefined ? {} : { cpu }) }, signals, voice);
}

/** Chosen once, at the start: what a program has seen of the CPU it has seen, and its image says so ever after. */
function cpuOf({ cpuWish }: RunOptions, plan: Plan, log: Logger): CpuRecord | undefined {
  if (plan.generation === undefined) {
    return chooseCpu(cpuWish ?? { baseline: { kind: 'host' }, masked: [] }, readCpuFlags());
  }
  if (cpuWish === undefined) return plan.cpu;
  const had = plan.cpu === undefined ? 'all of its CPU' : describeChoice(plan.cpu);
  const wanted = describeChoice({ ...cpuWish, baseline: baselineName(cpuWish.baseline) });
  if (had !== wanted)
    log.warn(`the application was started with ${had}, and continues so; ${wanted} is for a new start`);
  return plan.cpu;
}

function describeChoice({ baseline, masked }: Pick<CpuRecord, 'baseline' | 'masked'>): string {
  const mask = masked.length === 0 ? '' : ` and FF_APP_VIRT_CPUID_MASK=${masked.join(',')}`;
  return `--cpu-baseline ${baseline}${mask}`;
}

interface Plan extends StorePlan {
  /** What gives the application its user's ids; undefined where it is uid 0 inside, or root. */
  readonly ownIds?: OwnIds | undefined;
  /** By `performance.now()`. */
  readonly leaseWrittenAtMs: number;
}

async function planAndTell(
  options: RunOptions,
  holder: LeaseHolder | undefined,
  signals: CaughtSignals,
  voice: Voice,
): Promise<Plan> {
  if (options.noRestore) return await planRun(options, holder, signals, voice);
  return await voice.metrics.timed(
    () => planRun(options, holder, signals, voice),
    (outcome, plan) => ({ action: 'fetch_manifest', ...fetched(outcome, plan) }),
  );
}

function fetched(outcome: Outcome, plan: Plan | undefined): Omit<JobEvent & { action: 'fetch_manifest' }, 'action'> {
  if (plan === undefined) {
    const bad = outcome.error?.includes('format version') === true;
    return bad ? { ...outcome, manifest: 'version_mismatch' } : outcome;
  }
  // Not the time that the lease was waited for.
  const durationMs = Math.min(outcome.durationMs, performance.now() - plan.leaseWrittenAtMs);
  if (plan.generation !== undefined) return { durationMs, manifest: 'good', runMode: 'restore' };
  return { durationMs, manifest: plan.finished !== undefined ? 'finished' : 'not_found', runMode: 'run_from_scratch' };
}

async function planRun(
  options: RunOptions,
  holder: LeaseHolder | undefined,
  signals: CaughtSignals,
  { log, startedAtMs }: Voice,
): Promise<Plan> {
  const { leaseTtlMs: ttlMs, leaseWaitMs: waitMs = 2 * ttlMs, forceLease: force } = options;
  const request: PlanRequest = {
    ...options,
    ...(holder === undefined ? {} : { lease: { holder, ttlMs, waitMs, force } }),
  };
  const calledOff = new AbortController();
  try {
    const start = await signals.unlessEnded(
      isFileUrl(options.imageUrl)
        ? makePlan(request, log, calledOff.signal)
        : makePlanElsewhere(
            { request, log: { verbosity: options.verbosity, format: options.logFormat, startedAtMs } },
            calledOff.signal,
          ),
    );
    const leaseWrittenAtMs = performance.now() - start.leaseAgeMs;
    return { ...start, leaseWrittenAtMs, ownIds: await signals.unlessEnded(findIds(options, start, log)) };
  } finally {
    calledOff.abort();
  }
}

/** Who the application is: what it was for a restore, and for a start what can be had. Root is root. */
async function findIds(options: RunOptions, plan: StorePlan, log: Logger): Promise<OwnIds | undefined> {
  if (isPrivileged()) return undefined;
  if (plan.generation !== undefined) return await ownIdsForRestore(plan.identity, options.container);
  return options.container && process.getuid?.() !== 0 ? await ownIdsForStart(log) : undefined;
}

async function runSupervised(
  options: RunOptions,
  job: JobDirectory,
  holder: LeaseHolder | undefined,
  plan: Plan,
  signals: CaughtSignals,
  voice: Voice,
): Promise<RunOutcome> {
  const { log, startedAtMs, hooks } = voice;
  const privileged = isPrivileged();
  const { ownIds } = plan;
  const criu = await signals.unlessEnded(findCriu({ env: process.env, privileged }));
  if (criu.warning !== undefined) log.warn(criu.warning);
  const temporary = options.container ? temporaryDirectory(job.path) : {};
  const terminal = openTerminal(log);
  const { passphrase, ...plain } = options;
  log.trace(passphrase === undefined ? 'images are not encrypted' : 'images are encrypted');
  const environment = appEnvironment({
    env: process.env,
    scrub: options.scrubEnvironment,
    fakeRoot: !privileged && ownIds === undefined,
    ...(plan.generation === undefined && plan.cpu !== undefined ? { cpu: plan.cpu } : {}),
  });
  if (environment.kept.length > 0) {
    log.warn(
      `${environment.kept.join(', ')} stays as you set it: programs that read it may use more of the CPU than the image will say`,
    );
  }
  const config: SupervisorConfig = {
    ...plain,
    jobDirectory: job.path,
    ...temporary,
    ownOutputs: [1, 2].map(regularFile).filter((path) => path !== undefined),
    logDirectory: logDirectory(),
    ...(plan.generation === undefined ? {} : { restoreGeneration: plan.generation }),
    ...(holder === undefined ? {} : { lease: leaseConfig(options, holder, plan) }),
    ...(plan.knownGeneration === undefined ? {} : { knownGeneration: plan.knownGeneration }),
    criu: {
      command: [...(ownIds?.asRoot ?? []), ...criu.command],
      privileged,
      verbosity: options.verbosity,
      extraOptions: criuOptions(process.env['CRIU_OPTS']),
    },
    ...(plan.keys === undefined ? {} : { keys: plan.keys }),
    criuVersion: criu.version,
    ...(ownIds === undefined ? {} : { identity: { uid: ownIds.uid, gid: ownIds.gid } }),
    outer: {
      ...terminal.outer,
      ...(options.outputPath === undefined ? {} : { outputPath: options.outputPath }),
      ...(options.errorPath === undefined ? {} : { errorPath: options.errorPath }),
    },
    environment,
    ...(plan.cpu === undefined ? {} : { cpu: plan.cpu }),
    ...openFilesLimit(),
    ...readLinger(process.env),
    ignoredSignals: ignoredSignals(),
    startedAtMs,
    recordsMetrics: (process.env['FF_METRICS_RECORDER'] ?? '') !== '',
    mayBeToldToLeave: hooks.pilot !== undefined,
    launcherPid: process.pid,
    ...(process.env['UV_THREADPOOL_SIZE'] === undefined ? {} : { threadPoolSize: process.env['UV_THREADPOOL_SIZE'] }),
  };
  try {
    return await supervise(config, plan, job, signals, voice);
  } finally {
    terminal.restore();
    const left = temporary.temporaryDirectory && removeTemporaryDirectory(temporary.temporaryDirectory);
    if (left) log.warn(left.message);
  }
}

/** A place for temporary files, or why there is none: most applications can do without. */
function temporaryDirectory(jobDirectory: string): Pick<SupervisorConfig, 'temporaryDirectory' | 'temporaryProblem'> {
  try {
    return { temporaryDirectory: makeTemporaryDirectory(jobDirectory, process.env) };
  } catch (error) {
    return { temporaryProblem: toErrorRecord(error) };
  }
}

/** The name of the file behind a descriptor of ours; undefined for a pipe, a terminal, a device. */
function regularFile(fd: number): string | undefined {
  try {
    return fstatSync(fd).isFile() ? readlinkSync(`/proc/self/fd/${fd}`) : undefined;
  } catch {
    return undefined; // It is closed.
  }
}

function leaseConfig(
  options: RunOptions,
  holder: LeaseHolder,
  { lease }: Plan,
): NonNullable<SupervisorConfig['lease']> {
  const common = { holder, ttlMs: options.leaseTtlMs, strict: options.strictLease, ageMs: 0 };
  return lease === undefined ? common : { ...common, lease };
}

async function supervise(
  config: SupervisorConfig,
  plan: Plan,
  job: JobDirectory,
  signals: CaughtSignals,
  { log, metrics, hooks }: Voice,
): Promise<RunOutcome> {
  let isReady = false;
  const early: ForwardedSignal[] = [];
  const launched = launch({
    command: [...nodeCommand(), ...SUPERVISOR_FLAGS, fileURLToPath(new URL('./supervisor-main.js', import.meta.url))],
    container: config.container,
    privileged: config.criu.privileged,
    ...(plan.ownIds === undefined ? {} : { idMapping: plan.ownIds.mapping }),
    clocks: plan.clocks,
    lockFd: job.lockFd,
  });
  const conversation = converse(
    launched,
    () => withLeaseAge(config, plan),
    metrics,
    hooks.onEvent,
    () => {
      isReady = true;
      hooks.onReady?.(plan.generation ?? null);
      hooks.pilot?.ready({
        checkpoint: (request) => requestCheckpoint(config.jobName, request, () => undefined),
        status: () => readStatus(config.jobName),
      });
      for (const name of early.splice(0)) deliver(name);
    },
  );
  const deliver = (name: ForwardedSignal): void => {
    if (hooks.pilot?.signal(name) === true) conversation.send({ type: 'told-to-leave' });
    else forwardSignal(name, conversation.send, config);
  };
  signals.forward((name) => {
    if (isReady || hooks.pilot === undefined || !ENDING.includes(name)) {
      deliver(name);
      return;
    }
    // Before the application is ready, a signal that ends the run has nothing to wait for. But it may just have become so.
    forwardSignal(name, conversation.send, config, true);
    early.push(name);
  });
  try {
    const exitCode = await launched.exited;
    const { last, heard, prefix } = conversation.state();
    if (last?.type === 'ended') {
      const killed = last.killedBy === undefined ? {} : { killedBy: last.killedBy };
      return { exitCode: last.exitCode, reason: last.reason, ...killed };
    }
    if (last?.type === 'failed') return { exitCode: last.exitCode, error: fromErrorRecord(last.error) };
    if (!heard) return { exitCode: EXIT_FAILED, error: containerFailure(config.criu.privileged) };
    if (prefix !== undefined) {
      await hungUp(launched.channel);
      await removeLeftovers(prefix, log);
    }
    return { exitCode: EXIT_FAILED, error: supervisorLost(exitCode) };
  } finally {
    signals.forward(undefined);
    launched.channel.destroy();
  }
}

/** Flags that keep the supervisor's memory small; its heap holds tables, never image bytes. */
const SUPERVISOR_FLAGS = ['--max-semi-space-size=1', '--v8-pool-size=1', '--expose-gc', '--no-warnings'];

/** Only `unshare` may have died yet: until the supervisor is gone as well, it can still write. */
async function hungUp(channel: Launched['channel']): Promise<void> {
  if (channel.closed) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, HANG_UP_TIMEOUT_MS);
    channel.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

const HANG_UP_TIMEOUT_MS = 5_000;

interface Conversation {
  readonly send: (message: LauncherMessage) => void;
  state(): { last: SupervisorMessage | undefined; heard: boolean; prefix: { prefix: string; url: string } | undefined };
}

/** The supervisor's clock is its container's: it is told how old the lease is, not since when. */
function withLeaseAge(config: SupervisorConfig, plan: Plan): SupervisorConfig {
  if (config.lease === undefined) return config;
  return { ...config, lease: { ...config.lease, ageMs: performance.now() - plan.leaseWrittenAtMs } };
}

function converse(
  launched: Launched,
  makeConfig: () => SupervisorConfig,
  metrics: Metrics,
  onEvent: RunHooks['onEvent'],
  ready: () => void,
): Conversation {
  const { channel } = launched;
  let heard = false;
  let config: SupervisorConfig | undefined;
  let last: SupervisorMessage | undefined;
  let prefix: { prefix: string; url: string } | undefined;
  const waiting: LauncherMessage[] = [];
  const write = (message: LauncherMessage): void => void channel.write(`${JSON.stringify(message)}\n`);
  channel.setEncoding('utf8');
  channel.on('error', () => undefined);
  channel.on(
    'data',
    lineSplitter((line) => {
      const message = JSON.parse(line) as SupervisorMessage;
      if (message.type === 'hello') {
        heard = true;
        config = makeConfig();
        write({ type: 'config', config });
        // From here on we only wait: what the start needed is not needed again.
        unmapIdleCode();
        for (const early of waiting.splice(0)) write(early);
      } else if (message.type === 'ready') {
        ready();
      } else if (message.type === 'app-ended') {
        setTimeout(() => write({ type: 'not-told-to-leave' }), SIGNAL_GRACE_MS);
      } else if (message.type === 'spooled') {
        if (config !== undefined) emptySpoolOf(config, message.url);
      } else if (message.type === 'event') {
        metrics.emit(message.event);
        onEvent?.(message.event);
      } else if (message.type === 'prefix') {
        prefix = message.prefix === null ? undefined : { prefix: message.prefix, url: message.url };
      } else {
        last = message;
        // It has said its last word; a container that does not end is ended.
        setTimeout(() => launched.child.kill('SIGKILL'), LEAVE_TIMEOUT_MS).unref();
      }
    }) as (piece: string | Buffer) => void,
  );
  return {
    send: (message) => {
      if (heard) write(message);
      else waiting.push(message);
    },
    state: () => ({ last, heard, prefix }),
  };
}

/** Only here, outside the container, can a process outlive the job. */
function emptySpoolOf(config: SupervisorConfig, url: string): void {
  if (config.spoolDirectory === undefined) return;
  mkdirSync(config.logDirectory, { recursive: true, mode: 0o700 });
  emptySpoolInBackground(
    { directory: config.spoolDirectory, url, keep: config.keep },
    join(config.logDirectory, 'spool.log'),
  );
}

type ForwardedSignal = (typeof FORWARDED)[number];

interface CaughtSignals {
  /** Who gets them from now on; first the ones that came before. Undefined: nobody any more. */
  forward(to: ((name: ForwardedSignal) => void) | undefined): void;
  /** Wait for a step before the job exists; a signal that would end the job ends the wait, with `aborted`. */
  unlessEnded<T>(step: Promise<T>): Promise<T>;
  stop(): void;
}

/** From the first moment on: a signal that comes while the job is still being prepared reaches it all the same. */
function catchSignals(): CaughtSignals {
  const early: ForwardedSignal[] = [];
  const ignored = ignoredSignals();
  let endEarly: (error: Error) => void = () => undefined;
  const ended = new Promise<never>((_, reject) => (endEarly = reject));
  // Whoever waits sees it; when nobody does, the signal is still among the early ones.
  ended.catch(() => undefined);
  let target: ((name: ForwardedSignal) => void) | undefined = (name) => {
    early.push(name);
    if (ENDING.includes(name) && !ignored.includes(signalNumber(name) ?? 0)) endEarly(cameFirst(name));
  };
  const handlers = FORWARDED.map((name) => {
    const handler = (): void => target?.(name);
    process.on(name, handler);
    return [name, handler] as const;
  });
  return {
    forward: (to) => {
      target = to;
      if (to !== undefined) for (const name of early.splice(0)) to(name);
    },
    unlessEnded: (step) => Promise.race([step, ended]),
    stop: () => {
      for (const [name, handler] of handlers) process.off(name, handler);
    },
  };
}

const ENDING: readonly string[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

function cameFirst(signal: string): FastFreezeError {
  return new FastFreezeError({
    code: 'aborted',
    op: 'get the application ready',
    reason: `${signal} came first`,
    hint: 'the same command starts or continues it',
  });
}

function forwardSignal(
  name: ForwardedSignal,
  send: (message: LauncherMessage) => void,
  config: SupervisorConfig,
  ifNotReady = false,
): void {
  const number = signalNumber(name) ?? 0;
  if (config.ignoredSignals.includes(number)) return;
  if (name === 'SIGWINCH' && config.outer.terminal[0]) {
    send({ type: 'window-size', size: readWindowSize(0).toString('base64') });
  } else {
    send({ type: 'signal', signal: number, ...(ifNotReady ? { ifNotReady } : {}) });
  }
}

interface OuterTerminal {
  readonly outer: SupervisorConfig['outer'];
  /** Put the terminal back as it was found. */
  restore(): void;
}

function openTerminal(log: Logger): OuterTerminal {
  const usable = isatty(0) && isForegroundTerminal(0);
  if (!usable) return { outer: { terminal: [false, false, false] }, restore: () => undefined };
  const settings = readTerminalSettings(0);
  const windowSize = readWindowSize(0);
  writeTerminalSettings(0, rawSettings(settings));
  let restored = false;
  const restore = (): void => {
    if (restored) return;
    restored = true;
    try {
      writeTerminalSettings(0, settings);
    } catch (error) {
      // The terminal has gone (a closed window): there is nothing to put back.
      log.debug(toErrorRecord(error).message);
    }
  };
  process.once('exit', restore);
  return {
    outer: {
      terminal: [true, isatty(1), isatty(2)],
      settings: settings.toString('base64'),
      windowSize: windowSize.toString('base64'),
    },
    restore,
  };
}

/** The soft limit that our caller had; bin/fastfreeze reads it before Node raises its own. */
function openFilesLimit(): { openFilesLimit?: number } {
  const limit = Number(process.env['FF_NOFILE']);
  return Number.isSafeInteger(limit) && limit > 0 ? { openFilesLimit: limit } : {};
}

/** Signals that our caller ignores (nohup), from the mask that bin/fastfreeze read before Node reset it. */
export function ignoredSignals(): number[] {
  const text = process.env['FF_SIGIGN'] ?? '';
  if (!/^[0-9a-f]{1,16}$/i.test(text)) return [];
  const mask = BigInt(`0x${text}`);
  return Array.from({ length: 64 }, (_, i) => i + 1).filter((number) => (mask >> BigInt(number - 1)) & 1n);
}

async function removeLeftovers(prefix: { prefix: string; url: string }, log: Logger): Promise<void> {
  try {
    await removeUncommitted(openStore(prefix.url, { onWait: (message) => log.warn(message) }), prefix.prefix);
  } catch (error) {
    log.warn(`objects of the interrupted checkpoint stay: ${asFastFreezeError(error, 'remove them').message}`);
  }
}

/** Without a container of our own, one must be there: PIDs are chosen, and the machine's are not ours to choose. */
function lookAtTime(options: RunOptions, log: Logger): void {
  const problem = timeProblem({ container: options.container, privileged: isPrivileged() });
  if (problem === undefined) return;
  if (options.requireTimeVirtualization) throw problem;
  log.warn(`the monotonic and boot clocks of this job will jump at a restore: ${problem.reason}`);
}

/** What was asked for cannot be had, and would be missed only when it is needed. */
function refuseLeaseOptions({ strictLease, forceLease, imageUrl }: RunOptions): void {
  const [option] = [strictLease && '--strict-lease', forceLease && '--force-lease'].filter((one) => one !== false);
  if (option === undefined) return;
  throw new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: `${option} with ${imageUrl}`,
    reason: 'a cache has no leases',
    hint: 'leave it out, or use an --image-url in s3:, gs: or file:',
  });
}

function refuseBareMachine(): void {
  if (readlinkSync('/proc/self/ns/pid') !== MACHINE_PID_NAMESPACE) return;
  throw new FastFreezeError({
    code: 'host',
    op: 'run without a container',
    reason: "these are the machine's own PIDs, and a restore would take those that others have",
    hint: 'leave out --no-container',
  });
}

/** The first PID namespace has a number that the kernel never gives to another (PROC_PID_INIT_INO). */
const MACHINE_PID_NAMESPACE = 'pid:[4026531836]';

function finishedBefore(exitCode: number | null): RunOutcome {
  return { exitCode: exitCode ?? 0, reason: FINISHED_BEFORE };
}

function nothingToRun(url: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'run',
    subject: url,
    reason: 'there is no image to restore, and no command to start',
    hint: 'give the command after --',
  });
}

function supervisorLost(exitCode: number): FastFreezeError {
  return new FastFreezeError({
    code: 'app',
    op: 'go on with the application',
    reason: `its supervisor was killed from outside (exit code ${exitCode}), and the application ended with it`,
    hint: 'the same command continues from the last checkpoint',
  });
}
