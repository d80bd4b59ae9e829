// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { FastFreezeError, asFastFreezeError, fromErrorRecord, toErrorRecord } from '../base/errors.js';
import { type Logger, createLogger } from '../base/log.js';
import { type App, startApp } from '../container/app.js';
import { type Children, createChildren } from '../container/children.js';
import { privateTerminals } from '../container/mounts.js';
import { WITHOUT_CAPABILITIES } from '../container/own-ids.js';
import { createFileHasher } from '../container/read-files.js';
import { type AppStdio, type StdioOptions, scratchStdio } from '../container/stdio/app-stdio.js';
import { APP_TMP, mountTemporaryDirectory, removeTemporaryDirectory } from '../container/temporary.js';
import { cpuTimeMs, readTree, residentBytes } from '../container/tree.js';
import { type KeyMaterial, newKeyMaterial } from '../image/keys.js';
import { readClockOffsets } from '../linux/clocks.js';
import { unmapIdleCode } from '../linux/memory.js';
import { type ExitStatus, becomeSubreaper, shellCode, signalName } from '../linux/process.js';
import { type Poller, createPoller } from '../linux/poller.js';
import { interruptByte, writeTerminalSettings } from '../linux/terminal.js';
import type { OpenOptions } from '../store/store.js';
import { checkpoint } from './checkpoint.js';
import {
  CHECKPOINTED,
  INTERRUPTED,
  type CheckpointRequest,
  type CheckpointResult,
  type JobStatus,
  type Preserve,
  type Progress,
  type SupervisorConfig,
  type SupervisorMessage,
} from './config.js';
import { type ControlHandlers, type ControlServer, serveControl } from './control-server.js';
import { recordFinished } from './finished.js';
import { type LeaseGuard, guardLease } from './lease-guard.js';
import { type JobEvent, type Outcome, checkpointEvent } from './metrics/event.js';
import type { Pace } from './pace.js';
import { revive } from './passphrase.js';
import { adviceOnOpenFiles, joinPreserve, preserveOf, refuseCarrying } from './preserve.js';
import { createProgressLine } from './progress-line.js';
import { type Restored, restore } from './restore.js';

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

const EXIT_CHECKPOINTED = 137;
const EXIT_FAILED = 170;
const EXIT_RESTORE_FAILED = 171;
/** After a signal that asked it to leave, an application that ends has been ended by it. */
const LEAVING_MS = 300_000;
/** For a launcher that has hung. */
const ANSWER_TIMEOUT_MS = 10_000;
const START_TIMEOUT_MS = 30_000;
const SIGKILL = 9;
/** Before the application is ready these end the run: INT, TERM and HUP. */
const ENDING_SIGNALS: readonly number[] = [2, 15, 1];
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
    const exitCode = job.phase === 'restoring' ? EXIT_RESTORE_FAILED : EXIT_FAILED;
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
    setWindowSize: (size) => job.stdio?.setWindowSize(size),
    launcherGone: () => job.launcherGone(send),
    close: () => poller.close(),
  };
}

class Job {
  phase: 'starting' | 'restoring' | 'running' = 'starting';
  stdio: AppStdio | undefined;
  private app: App | undefined;
  private command: readonly string[];
  private control: ControlServer | undefined;
  private current: Promise<CheckpointResult> | undefined;
  private currentAbort: AbortController | undefined;
  private lastCheckpoint: JobStatus['lastCheckpoint'] = null;
  private lastFailure: string | null = null;
  private stoppedByCheckpoint = false;
  private readonly earlySignals: number[] = [];
  private readonly startedAt = new Date();
  private readonly lease: LeaseGuard;
  private becomeReady: () => void = () => undefined;
  /** Resolves when the application runs. */
  private readonly ready = new Promise<void>((resolve) => (this.becomeReady = resolve));
  /** Those of the run, or of the last checkpoint that brought a passphrase of its own. */
  private keys: KeyMaterial | undefined;
  /** What `run` was told, a checkpoint, or the run that made the image. */
  private preserve: Preserve;
  /** Where images of this job have gone: they are not the application's files. */
  private readonly destinations = new Set<string>();
  private readonly fileHasher = createFileHasher();
  private replacedFiles: readonly string[] = [];
  /** Of the job's checkpoints, those of earlier runs included. */
  private pace: Pace | undefined;
  private toldToLeaveAtMs: number | undefined;
  private heardOfLeaving: () => void = () => undefined;
  private hasAdvised = false;
  private hasTemporary = false;
  private temporaryProblem: FastFreezeError | undefined;

  constructor(
    private readonly config: SupervisorConfig,
    private readonly log: Logger,
    private readonly poller: Poller,
    private readonly children: Children,
    private readonly options: SupervisorOptions,
  ) {
    this.command = config.command;
    this.keys = config.keys;
    this.preserve = config.preserve;
    const app = { pid: () => this.app?.pid, end: (error: FastFreezeError) => this.endByLease(error) };
    this.lease = guardLease(config, log, app, this.opening());
  }

  async live(): Promise<void> {
    const { config, log } = this;
    if (config.container) privateTerminals();
    if (config.container) this.mountTemporary();
    const handlers: ControlHandlers = {
      checkpoint: (request, progress, signal) => this.checkpoint(request, progress, signal),
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
    const timer =
      config.checkpointEveryMs === undefined
        ? undefined
        : setInterval(() => this.checkpointOnTimer(), config.checkpointEveryMs);
    const status = await this.appEnded();
    clearInterval(timer);
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
      this.preserve = joinPreserve(this.preserve, { paths: [APP_TMP], openFiles: false, mapped: false });
      this.hasTemporary = true;
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

  /** Pass a signal to the application, or take it as the wish for a checkpoint. */
  signal(signal: number, ifNotReady = false): void {
    if (this.app === undefined || this.phase !== 'running') {
      if (ENDING_SIGNALS.includes(signal)) this.endBeforeReady(signal);
      else this.earlySignals.push(signal);
      return;
    }
    if (ifNotReady) return;
    if (this.config.checkpointOnSignals.includes(signal)) {
      this.checkpointOnSignal(signal);
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
    this.options.leave(EXIT_FAILED, { type: 'failed', exitCode: EXIT_FAILED, error: toErrorRecord(error) });
  }

  private endByLease(error: FastFreezeError): void {
    this.options.leave(EXIT_FAILED, { type: 'failed', exitCode: EXIT_FAILED, error: toErrorRecord(error) });
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
    this.currentAbort?.abort();
    const over = (): void => {
      this.killTree();
      // What the launcher would have cleared away.
      rmSync(this.config.jobDirectory, { recursive: true, force: true });
      if (this.config.temporaryDirectory !== undefined) removeTemporaryDirectory(this.config.temporaryDirectory);
      send({ type: 'ended', exitCode: EXIT_FAILED, reason: 'the launcher was killed' });
      this.poller.close();
      void this.lease.release().finally(() => process.exit(EXIT_FAILED));
    };
    setTimeout(over, 20_000).unref();
    (this.current ?? Promise.resolve()).then(over, over);
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
        await this.startFromScratch();
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

  private tell(event: JobEvent): void {
    this.options.send({ type: 'event', event });
  }

  private async startFromScratch(): Promise<void> {
    this.stdio = scratchStdio(this.stdioOptions());
    this.app = await startApp({
      prefix: this.appPrefix(),
      plan: {
        command: this.config.command,
        ignoredSignals: this.config.ignoredSignals,
        ...this.environment(),
        ...(this.config.openFilesLimit === undefined ? {} : { openFilesLimit: this.config.openFilesLimit }),
      },
      streams: this.stdio.start,
      children: this.children,
      timeoutMs: START_TIMEOUT_MS,
      // With ids of its own CRIU is not uid 0 to the kernel, which then lets it set no limits of the namespace at a restore.
      ownIpc: this.config.container && this.config.identity === undefined,
      onSharedIpc: (error) =>
        this.log.warn(
          `no IPC namespace for the application: what it has of System V IPC cannot be frozen (${error instanceof Error ? error.message : String(error)})`,
        ),
    });
    this.stdio.releaseAppEnds();
    this.log.info('Application is ready, started from scratch');
  }

  private async restoreFrom(generation: number): Promise<Restored> {
    this.phase = 'restoring';
    const startedMs = performance.now();
    const line = createProgressLine();
    const restored = await restore(
      {
        config: this.config,
        stdioOptions: this.stdioOptions(),
        poller: this.poller,
        children: this.children,
        log: this.log,
        temporaryProblem: this.temporaryProblem,
      },
      generation,
      line.show,
    ).finally(() => line.clear());
    this.app = restored.app;
    this.stdio = restored.stdio;
    this.command = restored.record.command;
    this.preserve = joinPreserve(this.preserve, preserveOf(restored.record));
    this.replacedFiles = restored.replacedFiles;
    this.pace = restored.record.pace;
    // CRIU brought back the size that the terminal had; the application learns today's as from any resize.
    const size = this.config.outer.windowSize;
    if (size !== undefined) this.stdio.setWindowSize(Buffer.from(size, 'base64'));
    for (const one of this.children.strangers(restored.app.pid)) {
      this.log.warn(
        `process ${one.pid} (${one.name}) came back outside the application's tree: it runs on, but the next checkpoint will be refused`,
      );
    }
    const seconds = (performance.now() - startedMs) / 1000;
    const mib = restored.rawBytes / 1048576;
    this.log.info(
      `Uncompressed image size is ${mib.toFixed(1)} MiB, rate: ${(mib / Math.max(seconds, 0.001)).toFixed(0)} MiB/s`,
    );
    this.log.info(`Application is ready, restore took ${seconds.toFixed(1)}s`);
    return restored;
  }

  /** Where the application keeps its own ids we keep ours, and need the namespace's capabilities; it must not. */
  private appPrefix(): readonly string[] {
    return this.config.identity === undefined ? [] : WITHOUT_CAPABILITIES;
  }

  private environment(): { setEnv: Record<string, string>; unsetEnv: string[] } {
    const { environment, threadPoolSize } = this.config;
    // We have one of our own, which the application must not see.
    const given = threadPoolSize === undefined ? {} : { UV_THREADPOOL_SIZE: threadPoolSize };
    const scrubbed = environment.unset.includes('UV_THREADPOOL_SIZE');
    const temporary = this.hasTemporary ? { TMPDIR: APP_TMP } : {};
    const setEnv: Record<string, string> = { ...(scrubbed ? {} : given), ...temporary, ...environment.set };
    const unset = [...environment.unset, 'UV_THREADPOOL_SIZE', 'FF_NOFILE', 'FF_SIGIGN'];
    return { setEnv, unsetEnv: unset.filter((name) => !(name in setEnv)) };
  }

  private stdioOptions(): StdioOptions {
    const { outer } = this.config;
    const settings = outer.settings === undefined ? undefined : Buffer.from(outer.settings, 'base64');
    const interrupt = settings === undefined ? 0 : interruptByte(settings);
    const sigint = 2;
    const onInterrupt = interrupt !== 0 && this.config.checkpointOnSignals.includes(sigint);
    return {
      poller: this.poller,
      outer: {
        terminal: outer.terminal,
        ...(settings === undefined ? {} : { settings }),
        ...(outer.windowSize === undefined ? {} : { windowSize: Buffer.from(outer.windowSize, 'base64') }),
        ...(outer.outputPath === undefined ? {} : { outputPath: outer.outputPath }),
        ...(outer.errorPath === undefined ? {} : { errorPath: outer.errorPath }),
      },
      ...(onInterrupt ? { inputFilter: (piece) => this.withoutInterrupt(piece, interrupt) } : {}),
    };
  }

  /** The key that would raise SIGINT asks for a checkpoint instead; the application never sees it. */
  private withoutInterrupt(piece: Buffer, interrupt: number): Buffer {
    if (!piece.includes(interrupt)) return piece;
    this.checkpointOnSignal(2);
    return Buffer.from(piece.filter((byte) => byte !== interrupt));
  }

  private hook(): void {
    if (this.config.onAppReady === undefined) return;
    const [file, ...args] = [...this.appPrefix(), '/bin/sh', '-c', this.config.onAppReady];
    const child = spawn(file, args, { stdio: ['ignore', 2, 2], detached: true });
    this.children.adopt(child);
    child.once('error', (error) => this.log.warn(`--on-app-ready could not start: ${error.message}`));
    child.once('exit', (code) => {
      if (code !== 0) this.log.warn(`--on-app-ready ended with exit code ${code ?? 'of a signal'}`);
    });
  }

  private checkpointOnSignal(signal: number): void {
    if (this.current !== undefined) {
      this.log.info('A checkpoint is under way; please wait');
      return;
    }
    this.log.info(`${signalName(signal)}: freezing the application`);
    this.checkpointAlone({ leaveRunning: false, source: signalName(signal) });
  }

  private checkpointOnTimer(): void {
    if (this.current !== undefined) return;
    this.checkpointAlone({ leaveRunning: true, source: 'timer' });
  }

  /** A checkpoint that no client waits for: its outcome goes to the log. */
  private checkpointAlone(request: CheckpointRequest): void {
    const line = createProgressLine();
    this.checkpoint(request, line.show, new AbortController().signal)
      .finally(() => line.clear())
      .catch((error: unknown) => {
        const known = asFastFreezeError(error, 'checkpoint');
        this.log.error(`${known.message}. The application runs on.`, known.hint);
      });
  }

  private async checkpoint(
    request: CheckpointRequest,
    progress: (p: Progress) => void,
    signal: AbortSignal,
  ): Promise<CheckpointResult> {
    refuseCarrying(request.preserve, this.config.container);
    const keys = request.passphrase === undefined ? this.keys : await newKeyMaterial(request.passphrase);
    // One at a time: wait for the one under way, which a timer may have begun. Two may wait for it, and nothing may come
    // between this wait's end and our own `current`.
    while (this.current !== undefined) await this.current.catch(() => undefined);
    const { app, stdio } = this.running(signal);
    const abort = new AbortController();
    const onGone = (): void => abort.abort();
    signal.addEventListener('abort', onGone);
    this.currentAbort = abort;
    const imageUrl = request.imageUrl ?? this.config.imageUrl;
    this.destinations.add(imageUrl);
    this.log.info(`Checkpointing application to ${imageUrl} (${request.source})`);
    const beganMs = performance.now();
    const preserve = joinPreserve(this.preserve, request.preserve);
    this.tell({ action: 'checkpoint_start', imageUrl });
    this.current = checkpoint(
      {
        config: this.config,
        command: this.command,
        appPid: app.pid,
        stdio,
        poller: this.poller,
        children: this.children,
        log: this.log,
        lease: this.lease,
        keys: revive(keys),
        preserve,
        fileHasher: this.fileHasher,
        pace: this.pace,
        destinations: [...this.destinations],
        openFilesFound: (...found) => this.advise(adviceOnOpenFiles(...found)),
        announcePrefix: (prefix, url) => this.options.send({ type: 'prefix', prefix, url }),
        spooled: (generation, url) => this.options.send({ type: 'spooled', generation, url }),
        endApplication: () => this.killTree(),
        onCommitted: (stopped) => (this.stoppedByCheckpoint = stopped),
      },
      request,
      progress,
      abort.signal,
    );
    try {
      const result = await this.current;
      // A copy elsewhere may have a passphrase of its own; what the job's own image has, those that follow have.
      if (result.imageUrl === this.config.imageUrl) this.keys = keys;
      this.preserve = preserve;
      // What another place can take says nothing of this one.
      if (result.imageUrl === this.config.imageUrl) this.pace = result.pace;
      this.lastCheckpoint = { ...result, at: new Date().toISOString() };
      this.tell(checkpointEvent(result));
      const ratio = result.storedBytes === 0 ? 1 : result.rawBytes / result.storedBytes;
      this.log.info(
        `Checkpoint ${result.generation} complete: ${(result.rawBytes / 1048576).toFixed(1)} MiB, ratio ${ratio.toFixed(1)}, ` +
          `frozen ${(result.frozenMs / 1000).toFixed(3)}s, durable after ${(result.durableMs / 1000).toFixed(3)}s`,
      );
      if (result.files !== null && result.files.entries > 1) {
        const { entries, dataBytes } = result.files;
        this.log.info(
          `The image has ${entries} preserved files and directories, ${(dataBytes / 1048576).toFixed(1)} MiB`,
        );
      }
      if (result.carried !== null) {
        const { files, dataBytes } = result.carried;
        this.log.info(`The image carries ${files} files that are only read, ${(dataBytes / 1048576).toFixed(1)} MiB`);
      }
      return result;
    } catch (error) {
      this.lastFailure = asFastFreezeError(error, 'checkpoint').message;
      this.tell({ action: 'checkpoint', durationMs: performance.now() - beganMs, error: this.lastFailure });
      throw error;
    } finally {
      this.current = undefined;
      this.currentAbort = undefined;
      signal.removeEventListener('abort', onGone);
    }
  }

  private opening(): OpenOptions {
    return { onWait: (message) => this.log.warn(message), adopt: (child) => this.children.adopt(child) };
  }

  /** Once: it is the same at every checkpoint. */
  private advise(advice: string | undefined): void {
    if (advice === undefined || this.hasAdvised) return;
    this.hasAdvised = true;
    this.log.info(advice);
  }

  /** What there is to freeze; throws where it cannot be frozen any more, or nobody wants it. */
  private running(signal: AbortSignal): { readonly app: App; readonly stdio: AppStdio } {
    const { app, stdio } = this;
    if (app === undefined || stdio === undefined || this.phase !== 'running') {
      throw new FastFreezeError({
        code: 'conflict',
        op: 'checkpoint the application',
        reason: `it is ${this.phase}`,
        hint: 'fastfreeze wait returns when it runs',
      });
    }
    if (!this.stoppedByCheckpoint && !signal.aborted) return { app, stdio };
    throw new FastFreezeError({
      code: 'conflict',
      op: 'checkpoint the application',
      reason: this.stoppedByCheckpoint ? 'another checkpoint has stopped it' : 'whoever asked for it has gone',
      hint: 'fastfreeze status shows what runs',
    });
  }

  private async idle(): Promise<void> {
    await this.ready;
    while (this.current !== undefined) await this.current.catch(() => undefined);
  }

  private async appEnded(): Promise<ExitStatus> {
    if (this.app === undefined) throw new FastFreezeError({ code: 'internal', op: 'wait', reason: 'no application' });
    const status = await this.app.exited;
    // A checkpoint that ends the application still has its last words to say, and to prune.
    await this.current?.catch(() => undefined);
    return status;
  }

  private async end(status: ExitStatus): Promise<void> {
    const { log } = this;
    if (this.stoppedByCheckpoint) {
      this.stdio?.abandon();
      this.killTree();
      await this.lease.release();
      log.info(
        `Exiting with exit_code=${EXIT_CHECKPOINTED}: the application was checkpointed; the same command continues it`,
      );
      this.options.leave(EXIT_CHECKPOINTED, { type: 'ended', exitCode: EXIT_CHECKPOINTED, reason: CHECKPOINTED });
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
    const killed = status.signal === null ? {} : { killedBy: signalName(status.signal) };
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

  private clockOffsets(): JobStatus['clockOffsets'] {
    const { monotonicNs, boottimeNs } = readClockOffsets(this.app?.pid);
    return { monotonicSeconds: Number(monotonicNs) / 1e9, boottimeSeconds: Number(boottimeNs) / 1e9 };
  }

  private status(): JobStatus {
    const tree = this.app === undefined ? [] : readTree(this.app.pid);
    const processes = tree.map(({ pid, name }) => ({ pid, name, residentBytes: residentBytes(pid) }));
    return {
      name: this.config.jobName,
      state: this.phase === 'running' ? (this.current === undefined ? 'running' : 'checkpointing') : this.phase,
      imageUrl: this.config.imageUrl,
      command: this.command,
      startedAt: this.startedAt.toISOString(),
      uptimeSeconds: Math.round((Date.now() - this.startedAt.getTime()) / 1000),
      restoredGeneration: this.config.restoreGeneration ?? null,
      launcherPid: this.config.launcherPid,
      appPid: this.app?.pid ?? 0,
      processes,
      replacedFiles: this.replacedFiles,
      residentBytes: processes.reduce((sum, one) => sum + one.residentBytes, 0),
      cpuSeconds: sum(tree.map(({ pid }) => cpuTimeMs(pid))) / 1000,
      outputBytes: this.stdio?.outputBytes ?? 0,
      lastCheckpoint: this.lastCheckpoint,
      lastFailure: this.lastFailure,
      lease: this.lease.state ?? null,
      clockOffsets: this.clockOffsets(),
      recordsMetrics: this.config.recordsMetrics,
      pace: this.pace ?? null,
    };
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}

/** In raw mode a line feed does not return the carriage. */
function writeForRawTerminal(line: string): void {
  try {
    process.stderr.write(line.replaceAll('\n', '\r\n'));
  } catch {
    return; // The terminal has gone; there is nobody to tell.
  }
}
