// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { rmSync, writeSync } from 'node:fs';
import { FastFreezeError, asFastFreezeError, fromErrorRecord, toErrorRecord } from '../base/errors.js';
import { type Logger, createLogger } from '../base/log.js';
import { every } from '../base/timers.js';
import type { App } from '../container/app.js';
import { type Children, createChildren } from '../container/children.js';
import { privateTerminals } from '../container/mounts.js';
import { type AppStdio, scratchStdio } from '../container/stdio/app-stdio.js';
import { APP_TMP, mountTemporaryDirectory, removeTemporaryDirectory } from '../container/temporary.js';
import { readTree } from '../container/tree.js';
import { unmapIdleCode } from '../linux/memory.js';
import { type ExitStatus, becomeSubreaper, shellCode, signalName } from '../linux/process.js';
import { type Poller, createPoller } from '../linux/poller.js';
import { writeTerminalSettings } from '../linux/terminal.js';
import type { OpenOptions } from '../store/store.js';
import { CHECKPOINTED, INTERRUPTED, type JobStatus, type SupervisorConfig, type SupervisorMessage } from './config.js';
import { type ControlServer, serveControl } from './control-server.js';
import { EXIT } from './exit-codes.js';
import { deadlySignal, recordFinished } from './finished.js';
import { type LeaseGuard, guardLease } from './lease-guard.js';
import type { JobEvent, Outcome } from './metrics/event.js';
import type { Restored } from './restore.js';
import { type AppStart, appPrefix, continueFrom, startFromScratch, stdioOptions } from './supervisor/app-start.js';
import { Checkpoints, type Phase } from './supervisor/checkpoints.js';
import { lookAtJob } from './supervisor/status.js';

/** The supervisor as its entry sees it. */
export interface Supervisor {
  signal(signal: number, ifNotReady?: boolean): void;
  /** A signal asks the job to leave: what of the application ends now has not finished its work. False: none does. */
  toldToLeave(told: boolean): void;
  setWindowSize(size: Buffer): void;
  launcherGone(): void;
  /** Let go of the thread that waits for descriptors: the process cannot end before it. */
  close(): void;
}

export interface SupervisorOptions {
  readonly config: SupervisorConfig;
  readonly send: (message: SupervisorMessage) => void;
  /** Tell the launcher and exit. */
  readonly leave: (exitCode: number, message: SupervisorMessage) => void;
}

/** After a signal that asked it to leave, an application that ends has been ended by it. */
const LEAVING_MS = 300_000;
/** For a launcher that has hung. */
const ANSWER_TIMEOUT_MS = 10_000;
const SIGINT = 2;
const SIGKILL = 9;
/** Before the application is ready these end the run: INT, TERM and HUP. */
const ENDING_SIGNALS: readonly number[] = [SIGINT, 15, 1];
const SIGWINCH = 28;
/** Output of an ended application may take as long as its reader needs; this only bounds a reader that has hung. */
const FINAL_FLUSH_MS = 24 * 3600 * 1000;

/** The job's life inside its container: start or restore, checkpoint on demand, end with the application. */
export function startSupervisor(options: SupervisorOptions): Supervisor {
  const { config, send, leave } = options;
  const log = createLogger({
    command: 'run',
    verbosity: config.verbosity,
    format: config.logFormat,
    startedAtMs: config.startedAtMs,
    ...(config.outer.terminal[0] ? { write: writeForRawTerminal } : {}),
  });
  const poller = createPoller();
  const children = createChildren();
  const job = new Job(config, log, poller, children, options);
  if (!config.container) becomeSubreaper();
  job.live().catch((error: unknown) => {
    const exitCode = job.phase === 'restoring' ? EXIT.restoreFailed : EXIT.failed;
    const known = asFastFreezeError(
      error,
      job.phase === 'restoring' ? 'restore the application' : 'run the application',
    );
    job.killTree();
    leave(exitCode, { type: 'failed', exitCode, error: toErrorRecord(known) });
  });
  return {
    signal: (signal, ifNotReady) => job.signal(signal, ifNotReady),
    toldToLeave: (told) => job.toldToLeave(told),
    setWindowSize: (size) => job.setWindowSize(size),
    launcherGone: () => job.launcherGone(send),
    close: () => poller.close(),
  };
}

class Job {
  phase: Phase = 'starting';
  stdio: AppStdio | undefined;
  private app: App | undefined;
  /** Of the terminal outside. */
  private windowSize: Buffer | undefined;
  private command: readonly string[];
  private control: ControlServer | undefined;
  private readonly checkpoints: Checkpoints;
  private readonly lease: LeaseGuard;
  private readonly startedAt = new Date();
  private readonly earlySignals: number[] = [];
  private becomeReady: () => void = () => undefined;
  /** Resolves when the application runs. */
  private readonly ready = new Promise<void>((resolve) => (this.becomeReady = resolve));
  private replacedFiles: readonly string[] = [];
  private toldToLeaveAtMs: number | undefined;
  private heardOfLeaving: () => void = () => undefined;
  private temporaryProblem: FastFreezeError | undefined;

  constructor(
    private readonly config: SupervisorConfig,
    private readonly log: Logger,
    private readonly poller: Poller,
    private readonly children: Children,
    private readonly options: SupervisorOptions,
  ) {
    this.command = config.command;
    const { windowSize } = config.outer;
    this.windowSize = windowSize === undefined ? undefined : Buffer.from(windowSize, 'base64');
    const app = { pid: () => this.app?.pid, end: (error: FastFreezeError) => this.endByLease(error) };
    this.lease = guardLease(config, log, app, this.opening());
    this.checkpoints = new Checkpoints({
      ...{ config, log, poller, children, lease: this.lease, send: options.send },
      state: () => ({ phase: this.phase, app: this.app, stdio: this.stdio, command: this.command }),
      endApplication: () => this.killTree(),
    });
  }

  async live(): Promise<void> {
    const { config, log, checkpoints } = this;
    if (config.container) {
      privateTerminals();
      this.mountTemporary();
    }
    const handlers = {
      checkpoint: checkpoints.take.bind(checkpoints),
      idle: () => this.idle(),
      status: () => this.status(),
    };
    this.control = await serveControl(config.jobDirectory, handlers, config.lingerMs);
    if (config.lease?.lease !== undefined && config.lease.ageMs > config.lease.ttlMs / 3) await this.lease.confirm();
    await this.start();
    this.phase = 'running';
    this.options.send({ type: 'ready' });
    this.becomeReady();
    this.hook();
    // The application may run for days before we are needed again.
    unmapIdleCode();
    for (const signal of this.earlySignals) this.signal(signal);
    const { checkpointEveryMs } = config;
    const stop = checkpointEveryMs === undefined ? undefined : every(checkpointEveryMs, () => checkpoints.onTimer());
    const status = await this.appEnded();
    stop?.();
    await this.control.close();
    await this.end(status);
    log.trace('supervisor leaves');
  }

  /** Where it cannot be had, an application that starts does without; one that has files there cannot. */
  private mountTemporary(): void {
    const { temporaryDirectory: path, temporaryProblem } = this.config;
    try {
      if (path === undefined) throw fromErrorRecord(temporaryProblem ?? toErrorRecord(new Error('there is none')));
      mountTemporaryDirectory(path);
      this.checkpoints.alsoPreserve({ paths: [APP_TMP], openFiles: false, mapped: false });
    } catch (error) {
      this.temporaryProblem = asFastFreezeError(error, 'mount');
      const { message, hint } = this.temporaryProblem;
      if (this.config.restoreGeneration !== undefined) return;
      const advice = hint === undefined ? '' : ` (try: ${hint})`;
      this.log.warn(`temporary files of the application will not be in the image: ${message}${advice}`);
    }
  }

  toldToLeave(told: boolean): void {
    if (told) this.toldToLeaveAtMs = performance.now();
    this.heardOfLeaving();
  }

  /** A size that comes before the application has a terminal is kept until it does. */
  setWindowSize(size: Buffer | undefined): void {
    this.windowSize = size;
    if (size !== undefined) this.stdio?.setWindowSize(size);
  }

  /** Pass a signal to the application, or take it as the wish for a checkpoint. */
  signal(signal: number, ifNotReady = false): void {
    if (this.app === undefined || this.phase !== 'running') {
      if (ENDING_SIGNALS.includes(signal)) this.endBeforeReady(signal);
      else this.earlySignals.push(signal);
      return;
    }
    if (ifNotReady) return;
    if (this.config.checkpointOnSignals.includes(signal)) {
      this.checkpoints.onSignal(signal);
      return;
    }
    // A terminal of the application's own tells it about its size by itself.
    if (signal === SIGWINCH && this.config.outer.terminal[0]) return;
    try {
      process.kill(this.app.pid, signal);
    } catch {
      this.log.debug(`${signalName(signal)} came after the application had ended`);
    }
  }

  private endBeforeReady(signal: number): void {
    const error = new FastFreezeError({
      code: 'aborted',
      op: 'get the application ready',
      reason: `${signalName(signal)} came first`,
      hint: 'the same command starts or continues it',
    });
    this.killTree();
    this.options.leave(EXIT.failed, { type: 'failed', exitCode: EXIT.failed, error: toErrorRecord(error) });
  }

  private endByLease(error: FastFreezeError): void {
    this.options.leave(EXIT.failed, { type: 'failed', exitCode: EXIT.failed, error: toErrorRecord(error) });
    this.killTree();
  }

  launcherGone(send: (message: SupervisorMessage) => void): void {
    this.log.debug('the launcher has gone');
    if (this.config.outer.settings !== undefined) {
      try {
        writeTerminalSettings(0, Buffer.from(this.config.outer.settings, 'base64'));
      } catch {
        this.log.debug('the terminal has gone as well');
      }
    }
    // A checkpoint under way is called off first, so that its objects are removed.
    this.checkpoints.callOff();
    const over = (): void => {
      this.killTree();
      // What the launcher would have cleared away.
      rmSync(this.config.jobDirectory, { recursive: true, force: true });
      if (this.config.temporaryDirectory !== undefined) removeTemporaryDirectory(this.config.temporaryDirectory);
      send({ type: 'ended', exitCode: EXIT.failed, reason: 'the launcher was killed' });
      this.poller.close();
      void this.lease.release().finally(() => process.exit(EXIT.failed));
    };
    setTimeout(over, 20_000).unref();
    void this.checkpoints.settled().then(over);
  }

  /** End what is left of the application. In a container of our own PID 1's end does the same. */
  killTree(): void {
    if (this.app === undefined && this.phase !== 'restoring') return;
    const root = this.app?.pid ?? 1000;
    for (const one of readTree(root)) {
      try {
        process.kill(one.pid, SIGKILL);
      } catch {
        this.log.trace(`process ${one.pid} had ended already`);
      }
    }
  }

  private async start(): Promise<void> {
    const generation = this.config.restoreGeneration;
    const beganMs = performance.now();
    const outcome = (): Outcome => ({ durationMs: performance.now() - beganMs });
    try {
      if (generation === undefined) {
        this.stdio = scratchStdio(stdioOptions(this.appStart()));
        this.setWindowSize(this.windowSize);
        this.app = await startFromScratch(this.appStart(), this.stdio);
        this.tell({ action: 'run_from_scratch', ...outcome() });
      } else {
        const restored = await this.restoreFrom(generation);
        const { durationMs } = outcome();
        const shards = restored.shardBytes.map((sizeBytes) => ({ sizeBytes, durationMs }));
        this.tell({
          action: 'restore',
          durationMs,
          transfer: { rawBytes: restored.rawBytes, storedBytes: sum(restored.shardBytes), durationMs, shards },
          sinceCheckpointMs: this.startedAt.getTime() - Date.parse(restored.createdAt),
        });
      }
    } catch (error) {
      const { message } = asFastFreezeError(error, 'start');
      this.tell({ action: generation === undefined ? 'run_from_scratch' : 'restore', ...outcome(), error: message });
      throw error;
    }
  }

  private async restoreFrom(generation: number): Promise<Restored> {
    this.phase = 'restoring';
    const restored = await continueFrom(this.appStart(), generation);
    this.app = restored.app;
    this.stdio = restored.stdio;
    // CRIU brought back the size that the terminal had; the application learns today's as from any resize.
    this.setWindowSize(this.windowSize);
    this.command = restored.record.command;
    this.replacedFiles = restored.replacedFiles;
    this.checkpoints.inherit(restored.record);
    return restored;
  }

  private appStart(): AppStart {
    const { config, log, poller, children, temporaryProblem } = this;
    return { config, log, poller, children, temporaryProblem, onInterrupt: () => this.checkpoints.onSignal(SIGINT) };
  }

  private tell(event: JobEvent): void {
    this.options.send({ type: 'event', event });
  }

  private hook(): void {
    if (this.config.onAppReady === undefined) return;
    const [file, ...args] = [...appPrefix(this.config), '/bin/sh', '-c', this.config.onAppReady];
    const child = spawn(file, args, { stdio: ['ignore', 2, 2], detached: true });
    this.children.adopt(child);
    child.once('error', (error) => this.log.warn(`--on-app-ready could not start: ${error.message}`));
    child.once('exit', (code) => {
      if (code !== 0) this.log.warn(`--on-app-ready ended with exit code ${code ?? 'of a signal'}`);
    });
  }

  private opening(): OpenOptions {
    return { onWait: (message) => this.log.warn(message), adopt: (child) => this.children.adopt(child) };
  }

  private async idle(): Promise<void> {
    await this.ready;
    while (this.checkpoints.isUnderWay) await this.checkpoints.settled();
  }

  private async appEnded(): Promise<ExitStatus> {
    if (this.app === undefined) throw new FastFreezeError({ code: 'internal', op: 'wait', reason: 'no application' });
    const status = await this.app.exited;
    this.checkpoints.end();
    // A checkpoint that ends the application still has its last words to say, and to prune.
    await this.checkpoints.settled();
    return status;
  }

  private async end(status: ExitStatus): Promise<void> {
    const { log } = this;
    if (this.checkpoints.hasStopped) {
      this.stdio?.abandon();
      this.killTree();
      await this.lease.release();
      log.info(
        `Exiting with exit_code=${EXIT.checkpointed}: the application was checkpointed; the same command continues it`,
      );
      this.options.leave(EXIT.checkpointed, { type: 'ended', exitCode: EXIT.checkpointed, reason: CHECKPOINTED });
      return;
    }
    await this.stdio?.finish(FINAL_FLUSH_MS);
    const exitCode = shellCode(status);
    const reason =
      status.signal === null
        ? `Application exited with exit_code=${exitCode}`
        : `Application caught fatal signal ${signalName(status.signal)}`;
    if (await this.wasInterrupted()) {
      await this.lease.release();
      log.info(`${reason}, since it was told to leave before it could be frozen: that is not recorded as its end`);
      this.options.leave(exitCode, { type: 'ended', exitCode, reason: INTERRUPTED });
      return;
    }
    try {
      await recordFinished(this.config, this.lease, status, this.command, this.opening());
    } catch (error) {
      log.warn(
        `the record that the job has finished could not be written: ${asFastFreezeError(error, 'write').message}`,
      );
    }
    await this.lease.release();
    if (exitCode !== 0) log.info(`Exiting with exit_code=${exitCode}: ${reason}`);
    const signal = deadlySignal(status, this.config);
    const killed = signal === null ? {} : { killedBy: signalName(signal) };
    this.options.leave(exitCode, { type: 'ended', exitCode, reason, ...killed });
  }

  /** A batch system tells every process of a job to leave: some of them exit in order, with a code of their own. */
  private async wasInterrupted(): Promise<boolean> {
    if (this.config.mayBeToldToLeave && !this.isLeaving()) {
      // The application may have died of a signal that the launcher has not told us of yet.
      await new Promise<void>((resolve) => {
        this.heardOfLeaving = resolve;
        setTimeout(resolve, ANSWER_TIMEOUT_MS);
        this.options.send({ type: 'app-ended' });
      });
    }
    return this.isLeaving();
  }

  private isLeaving(): boolean {
    return this.toldToLeaveAtMs !== undefined && performance.now() - this.toldToLeaveAtMs < LEAVING_MS;
  }

  private status(): JobStatus {
    const { config, checkpoints, phase } = this;
    return lookAtJob(this.app, {
      name: config.jobName,
      state: phase === 'running' && checkpoints.isUnderWay ? 'checkpointing' : phase,
      imageUrl: config.imageUrl,
      command: this.command,
      startedAt: this.startedAt.toISOString(),
      restoredGeneration: config.restoreGeneration ?? null,
      launcherPid: config.launcherPid,
      replacedFiles: this.replacedFiles,
      outputBytes: this.stdio?.outputBytes ?? 0,
      lastCheckpoint: checkpoints.last,
      lastFailure: checkpoints.lastFailure,
      lease: this.lease.state ?? null,
      recordsMetrics: config.recordsMetrics,
      pace: checkpoints.pace ?? null,
    });
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}

/** In raw mode a line feed does not return the carriage. */
function writeForRawTerminal(line: string): void {
  try {
    // Not by process.stderr, whose error would come later, and end us.
    writeSync(2, line.replaceAll('\n', '\r\n'));
  } catch {
    return; // The terminal has gone; there is nobody to tell.
  }
}
