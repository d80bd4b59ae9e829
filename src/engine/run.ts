// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { isatty } from 'node:tty';
import { fileURLToPath } from 'node:url';
import { FastFreezeError, asFastFreezeError, fromErrorRecord, toErrorRecord } from '../base/errors.js';
import { type Logger, type Verbosity, createLogger } from '../base/log.js';
import { type Launched, containerFailure, launch } from '../container/launch.js';
import type { Identity, OwnIds } from '../container/own-ids.js';
import { findCriu } from '../criu/runtime/find.js';
import { isPrivileged } from '../criu/runtime/privilege.js';
import { listGenerations, readManifest } from '../image/generations.js';
import { removeUncommitted } from '../image/prune.js';
import type { Clocks } from '../linux/clocks.js';
import { signalNumber } from '../linux/process.js';
import {
  isForegroundTerminal,
  rawSettings,
  readTerminalSettings,
  readWindowSize,
  writeTerminalSettings,
} from '../linux/terminal.js';
import { openStore } from '../store/store.js';
import { parseAppRecord } from './app-record.js';
import type { JobOptions, LauncherMessage, SupervisorConfig, SupervisorMessage } from './config.js';
import { lineSplitter } from './control-protocol.js';
import { ownIdsForRestore, ownIdsForStart } from './identity.js';
import { emptySpool, emptySpoolInBackground } from './spool.js';
import { type JobDirectory, claimJob, logDirectory, releaseJob } from './state.js';

export interface RunOptions extends JobOptions {
  readonly noRestore: boolean;
  /** A generation other than the newest. */
  readonly generation?: number;
  readonly outputPath?: string;
  readonly errorPath?: string;
}

/** How `run` ended: the process's exit code, and the error to print when it was ours. */
export interface RunOutcome {
  readonly exitCode: number;
  readonly error?: FastFreezeError;
}

const EXIT_FAILED = 170;
const EXIT_RESTORE_FAILED = 171;
/** From the supervisor's last word to the end of its container. */
const LEAVE_TIMEOUT_MS = 15_000;

/** Signals that a scheduler, a shell or a user may send to the job. The rest stop or end a process by themselves. */
const FORWARDED = [
  ...['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGTERM', 'SIGALRM', 'SIGVTALRM', 'SIGURG', 'SIGXCPU'],
  ...['SIGWINCH', 'SIGIO', 'SIGPWR', 'SIGCONT'],
] as const satisfies readonly NodeJS.Signals[];

/** Start the job or continue it, stay its process to the end, and mirror how it ended. */
export async function run(options: RunOptions): Promise<RunOutcome> {
  const startedAtMs = Date.now();
  const signals = catchSignals();
  try {
    return await runWithSignals(options, signals, startedAtMs);
  } finally {
    signals.stop();
  }
}

async function runWithSignals(options: RunOptions, signals: CaughtSignals, startedAtMs: number): Promise<RunOutcome> {
  const log = createLogger({ command: 'run', verbosity: options.verbosity, startedAtMs });
  log.debug(`Time is ${new Date().toUTCString()}, host is ${hostname()}`);
  // A URL that nothing can be kept under is a mistake on the command line, not a failed restore.
  openStore(options.imageUrl);
  if (!options.container) refuseBareMachine();
  const job = claimJob(options.jobName);
  try {
    let plan: Plan;
    try {
      plan = await signals.unlessEnded(makePlan(options, log));
    } catch (error) {
      if (error instanceof FastFreezeError && error.code === 'aborted') throw error;
      return { exitCode: EXIT_RESTORE_FAILED, error: asFastFreezeError(error, 'fetch the image manifest') };
    }
    if (plan.generation === undefined && options.command.length === 0) throw nothingToRun(options.imageUrl);
    return await runSupervised(options, job, plan, signals, log, startedAtMs);
  } finally {
    releaseJob(job);
  }
}

async function makePlan(options: RunOptions, log: Logger): Promise<Plan> {
  const start = await planStart(options, log);
  await tellFencing(options.imageUrl, log);
  return { ...start, ownIds: await findIds(options, start, log) };
}

interface Plan {
  readonly generation?: number;
  readonly clocks?: Clocks;
  /** The ids that the image has in it. */
  readonly identity?: Identity;
  /** What gives the application its user's ids; undefined where it is uid 0 inside, or root. */
  readonly ownIds?: OwnIds | undefined;
}

/** Restore or start anew? The manifest decides; only what is known to be sound is restored. */
async function planStart(options: RunOptions, log: Logger): Promise<Plan> {
  if (options.noRestore) {
    log.info('Starting from scratch, as --no-restore asks');
    return {};
  }
  if (options.spoolDirectory !== undefined) {
    // What an earlier run left in the spool is newer than what the URL holds.
    const { spoolDirectory: directory, imageUrl: url, keep } = options;
    await emptySpool({ directory, url, keep, log: (message) => log.info(message) });
  }
  log.info(`Fetching image manifest for ${options.imageUrl}`);
  const store = openStore(options.imageUrl, { onWait: (message) => log.warn(message) });
  const generation = options.generation ?? (await listGenerations(store)).at(-1);
  if (generation === undefined) {
    log.info('Image manifest not found, running application from scratch');
    return {};
  }
  const manifest = await readManifest(store, generation, { allowBadVersion: options.allowBadImageVersion });
  if (manifest.state === 'finished') {
    const code = manifest.finished?.exitCode ?? null;
    log.info(
      `This job finished${code === null ? '' : ` with exit_code=${code}`} at ${manifest.createdAt}; starting anew`,
    );
    return {};
  }
  const record = parseAppRecord(manifest.app);
  const given = options.command.join('\0');
  if (given !== '' && given !== record.command.join('\0')) {
    log.warn(
      `the image is of another command, which is what continues: ${record.command.join(' ')} (given: ${options.command.join(' ')})`,
    );
  }
  log.info(`Restoring application from generation ${generation} of ${manifest.createdAt}`);
  return { generation, clocks: record.clocks, ...(record.identity === undefined ? {} : { identity: record.identity }) };
}

/** Say at the start what a service does not promise, or that nothing can be written there: later is too late. */
async function tellFencing(url: string, log: Logger): Promise<void> {
  const store = openStore(url, { onWait: (message) => log.warn(message) });
  // A directory keeps the promise, and is made by the first checkpoint: a job without one leaves nothing.
  if (store.url.startsWith('file:')) return;
  try {
    const { fencing } = await store.prepare();
    if (fencing === 'atomic') return;
    log.warn(`${url} has no conditional writes: fencing is best effort, so never run this job on two machines at once`);
  } catch (error) {
    log.warn(`${asFastFreezeError(error, 'prepare', url).message}; checkpoints will fail`);
  }
}

/** Who the application is: what it was for a restore, and for a start what can be had. Root is root. */
async function findIds(options: RunOptions, plan: Plan, log: Logger): Promise<OwnIds | undefined> {
  if (isPrivileged()) return undefined;
  if (plan.generation !== undefined) return await ownIdsForRestore(plan.identity, options.container);
  return options.container && process.getuid?.() !== 0 ? await ownIdsForStart(log) : undefined;
}

async function runSupervised(
  options: RunOptions,
  job: JobDirectory,
  plan: Plan,
  signals: CaughtSignals,
  log: Logger,
  startedAtMs: number,
): Promise<RunOutcome> {
  const privileged = isPrivileged();
  const { ownIds } = plan;
  const criu = await signals.unlessEnded(findCriu({ env: process.env, privileged }));
  if (criu.warning !== undefined) log.warn(criu.warning);
  const terminal = openTerminal(options.verbosity);
  const config: SupervisorConfig = {
    ...options,
    jobDirectory: job.path,
    logDirectory: logDirectory(),
    ...(plan.generation === undefined ? {} : { restoreGeneration: plan.generation }),
    criu: {
      command: [...(ownIds?.asRoot ?? []), ...criu.command],
      privileged,
      verbosity: options.verbosity,
      extraOptions: (process.env['CRIU_OPTS'] ?? '').split(/\s+/).filter((word) => word !== ''),
    },
    criuVersion: criu.version,
    ...(ownIds === undefined ? {} : { identity: { uid: ownIds.uid, gid: ownIds.gid } }),
    outer: {
      ...terminal.outer,
      ...(options.outputPath === undefined ? {} : { outputPath: options.outputPath }),
      ...(options.errorPath === undefined ? {} : { errorPath: options.errorPath }),
    },
    ...openFilesLimit(),
    ignoredSignals: ignoredSignals(),
    startedAtMs,
    launcherPid: process.pid,
    ...(process.env['UV_THREADPOOL_SIZE'] === undefined ? {} : { threadPoolSize: process.env['UV_THREADPOOL_SIZE'] }),
  };
  try {
    return await supervise(config, plan, job, signals, log);
  } finally {
    terminal.restore();
  }
}

async function supervise(
  config: SupervisorConfig,
  plan: Plan,
  job: JobDirectory,
  signals: CaughtSignals,
  log: Logger,
): Promise<RunOutcome> {
  const launched = launch({
    command: [process.execPath, ...SUPERVISOR_FLAGS, fileURLToPath(new URL('./supervisor-main.js', import.meta.url))],
    container: config.container,
    privileged: config.criu.privileged,
    ...(plan.ownIds === undefined ? {} : { idMapping: plan.ownIds.mapping }),
    clocks: plan.clocks,
    lockFd: job.lockFd,
  });
  const conversation = converse(launched, config);
  signals.forward((name) => forwardSignal(name, conversation.send, config));
  try {
    const exitCode = await launched.exited;
    const { last, heard, prefix } = conversation.state();
    if (last?.type === 'ended') return { exitCode: last.exitCode };
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
const SUPERVISOR_FLAGS = ['--max-semi-space-size=1', '--v8-pool-size=1', '--no-warnings'];

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

function converse(launched: Launched, config: SupervisorConfig): Conversation {
  const { channel } = launched;
  let heard = false;
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
        write({ type: 'config', config });
        for (const early of waiting.splice(0)) write(early);
      } else if (message.type === 'spooled') {
        emptySpoolOf(config, message.url);
      } else if (message.type === 'prefix') {
        prefix = message.prefix === null ? undefined : { prefix: message.prefix, url: message.url };
      } else if (message.type === 'ended' || message.type === 'failed') {
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
): void {
  const number = signalNumber(name) ?? 0;
  if (config.ignoredSignals.includes(number)) return;
  if (name === 'SIGWINCH' && config.outer.terminal[0]) {
    send({ type: 'window-size', size: readWindowSize(0).toString('base64') });
  } else {
    send({ type: 'signal', signal: number });
  }
}

interface OuterTerminal {
  readonly outer: SupervisorConfig['outer'];
  /** Put the terminal back as it was found. */
  restore(): void;
}

function openTerminal(verbosity: Verbosity): OuterTerminal {
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
      createLogger({ command: 'run', verbosity }).debug(toErrorRecord(error).message);
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
function ignoredSignals(): number[] {
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
