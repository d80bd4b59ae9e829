// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';
import type { Logger } from '../../base/log.js';
import type { App } from '../../container/app.js';
import type { Children } from '../../container/children.js';
import { createFileHasher } from '../../container/read-files.js';
import type { AppStdio } from '../../container/stdio/app-stdio.js';
import { type KeyMaterial, newKeyMaterial } from '../../image/keys.js';
import type { Poller } from '../../linux/poller.js';
import { signalName } from '../../linux/process.js';
import type { AppRecord } from '../app-record.js';
import { checkpoint } from '../checkpoint.js';
import type {
  CheckpointRequest,
  CheckpointResult,
  JobStatus,
  Preserve,
  Progress,
  SupervisorConfig,
  SupervisorMessage,
} from '../config.js';
import type { LeaseGuard } from '../lease-guard.js';
import { checkpointEvent } from '../metrics/event.js';
import type { Pace } from '../pace.js';
import { revive } from '../passphrase.js';
import { adviceOnOpenFiles, joinPreserve, preserveOf, refuseCarrying } from '../preserve.js';
import { createProgressLine } from '../progress-line.js';

/** How far a job has come. Only one that runs can be frozen. */
export type Phase = 'starting' | 'restoring' | 'running';

/** What checkpoints need of the job, and what they ask of it. */
export interface Freezable {
  readonly config: SupervisorConfig;
  readonly log: Logger;
  readonly poller: Poller;
  readonly children: Children;
  readonly lease: LeaseGuard;
  readonly send: (message: SupervisorMessage) => void;
  state(): {
    readonly phase: Phase;
    readonly app: App | undefined;
    readonly stdio: AppStdio | undefined;
    readonly command: readonly string[];
  };
  endApplication(): void;
}

/** The checkpoints of one run of a job: one at a time, each with what the ones before have left. */
export class Checkpoints {
  last: JobStatus['lastCheckpoint'] = null;
  lastFailure: string | null = null;
  /** One has been committed that ends the application. */
  hasStopped = false;
  /** Of the job's checkpoints, those of earlier runs included. */
  pace: Pace | undefined;
  private current: Promise<CheckpointResult> | undefined;
  private currentAbort: AbortController | undefined;
  /** The signal that asked for one that stops the application while another was under way. */
  private wish: number | undefined;
  private isOver = false;
  /** Those of the run, or of the last checkpoint that brought a passphrase of its own. */
  private keys: KeyMaterial | undefined;
  /** What `run` was told, a checkpoint, or the run that made the image. */
  private preserve: Preserve;
  /** Where images of this job have gone: they are not the application's files. */
  private readonly destinations = new Set<string>();
  private readonly fileHasher = createFileHasher();
  private hasAdvised = false;

  constructor(private readonly job: Freezable) {
    this.keys = job.config.keys;
    this.preserve = job.config.preserve;
  }

  get isUnderWay(): boolean {
    return this.current !== undefined;
  }

  /** From now on these travel in images as well. */
  alsoPreserve(preserve: Preserve): void {
    this.preserve = joinPreserve(this.preserve, preserve);
  }

  /** Go on as the run did that made the image. */
  inherit(record: AppRecord): void {
    this.alsoPreserve(preserveOf(record));
    this.pace = record.pace;
  }

  /** Freeze the application, after the checkpoint under way. Rejects with what went wrong; the application runs on then. */
  async take(
    request: CheckpointRequest,
    progress: (p: Progress) => void,
    signal: AbortSignal,
  ): Promise<CheckpointResult> {
    const { config, log } = this.job;
    refuseCarrying(request.preserve, config.container);
    const keys = request.passphrase === undefined ? this.keys : await newKeyMaterial(request.passphrase);
    // One at a time: wait for the one under way, which a timer may have begun. Two may wait for it, and nothing may come
    // between this wait's end and our own `current`.
    while (this.current !== undefined) await this.settled();
    const running = this.running(signal);
    const abort = new AbortController();
    const onGone = (): void => abort.abort();
    signal.addEventListener('abort', onGone);
    this.currentAbort = abort;
    const imageUrl = request.imageUrl ?? config.imageUrl;
    this.destinations.add(imageUrl);
    log.info(`Checkpointing application to ${imageUrl} (${request.source})`);
    const beganMs = performance.now();
    const preserve = joinPreserve(this.preserve, request.preserve);
    this.job.send({ type: 'event', event: { action: 'checkpoint_start', imageUrl } });
    this.current = this.begin(running, { keys, preserve }, request, progress, abort.signal);
    try {
      const result = await this.current;
      this.preserve = preserve;
      if (result.imageUrl === config.imageUrl) {
        // A copy elsewhere may have a passphrase of its own; what the job's own image has, those that follow have.
        this.keys = keys;
        // What another place can take says nothing of this one.
        this.pace = result.pace;
      }
      this.last = { ...result, at: new Date().toISOString() };
      this.job.send({ type: 'event', event: checkpointEvent(result) });
      for (const line of summary(result)) log.info(line);
      return result;
    } catch (error) {
      this.lastFailure = asFastFreezeError(error, 'checkpoint').message;
      const durationMs = performance.now() - beganMs;
      this.job.send({ type: 'event', event: { action: 'checkpoint', durationMs, error: this.lastFailure } });
      throw error;
    } finally {
      this.current = undefined;
      this.currentAbort = undefined;
      signal.removeEventListener('abort', onGone);
      this.grantWish();
    }
  }

  /**
   * Freeze and stop the application. A scheduler says so once: with a checkpoint under way, that is done after it, unless it
   * has stopped the application itself.
   */
  onSignal(signal: number): void {
    if (this.isUnderWay) {
      this.job.log.info('A checkpoint is under way; please wait');
      this.wish ??= signal;
      return;
    }
    this.freezeOn(signal);
  }

  onTimer(): void {
    if (!this.isUnderWay) this.takeAlone({ leaveRunning: true, source: 'timer' });
  }

  /** Call off the one under way: it fails, and its objects are removed. None is begun any more that nobody waits for. */
  callOff(): void {
    this.end();
    this.currentAbort?.abort();
  }

  /** The application has ended, or is about to: what waits has nothing to freeze. */
  end(): void {
    this.isOver = true;
  }

  /** Resolves when the one that is under way now has ended, however. */
  async settled(): Promise<void> {
    await this.current?.catch(() => undefined);
  }

  /** Before those that wait for their turn: nothing comes between this and the end of the one before. */
  private grantWish(): void {
    const signal = this.wish;
    this.wish = undefined;
    if (signal !== undefined && !this.hasStopped && !this.isOver) this.freezeOn(signal);
  }

  private freezeOn(signal: number): void {
    this.job.log.info(`${signalName(signal)}: freezing the application`);
    this.takeAlone({ leaveRunning: false, source: signalName(signal) });
  }

  /** A checkpoint that no client waits for: its outcome goes to the log. */
  private takeAlone(request: CheckpointRequest): void {
    const line = createProgressLine();
    this.take(request, line.show, new AbortController().signal)
      .finally(() => line.clear())
      .catch((error: unknown) => {
        const known = asFastFreezeError(error, 'checkpoint');
        this.job.log.error(`${known.message}. The application runs on.`, known.hint);
      });
  }

  private begin(
    { app, stdio, command }: Running,
    { keys, preserve }: { readonly keys: KeyMaterial | undefined; readonly preserve: Preserve },
    request: CheckpointRequest,
    progress: (p: Progress) => void,
    signal: AbortSignal,
  ): Promise<CheckpointResult> {
    const { config, poller, children, log, lease, send } = this.job;
    return checkpoint(
      {
        config,
        command,
        appPid: app.pid,
        stdio,
        poller,
        children,
        log,
        lease,
        keys: revive(keys),
        preserve,
        fileHasher: this.fileHasher,
        pace: this.pace,
        destinations: [...this.destinations],
        openFilesFound: (...found) => this.advise(adviceOnOpenFiles(...found)),
        announcePrefix: (prefix, url) => send({ type: 'prefix', prefix, url }),
        spooled: (generation, url) => send({ type: 'spooled', generation, url }),
        endApplication: () => this.job.endApplication(),
        onCommitted: (stopped) => (this.hasStopped = stopped),
      },
      request,
      progress,
      signal,
    );
  }

  /** What there is to freeze; throws where it cannot be frozen any more, or nobody wants it. */
  private running(signal: AbortSignal): Running {
    const { phase, app, stdio, command } = this.job.state();
    if (app === undefined || stdio === undefined || phase !== 'running') {
      throw new FastFreezeError({
        code: 'conflict',
        op: 'checkpoint the application',
        reason: `it is ${phase}`,
        hint: 'fastfreeze wait returns when it runs',
      });
    }
    if (!this.hasStopped && !signal.aborted) return { app, stdio, command };
    throw new FastFreezeError({
      code: 'conflict',
      op: 'checkpoint the application',
      reason: this.hasStopped ? 'another checkpoint has stopped it' : 'whoever asked for it has gone',
      hint: 'fastfreeze status shows what runs',
    });
  }

  /** Once: it is the same at every checkpoint. */
  private advise(advice: string | undefined): void {
    if (advice === undefined || this.hasAdvised) return;
    this.hasAdvised = true;
    this.job.log.info(advice);
  }
}

interface Running {
  readonly app: App;
  readonly stdio: AppStdio;
  readonly command: readonly string[];
}

/** What a user is told of a checkpoint, line by line. */
function summary({
  generation,
  rawBytes,
  storedBytes,
  frozenMs,
  durableMs,
  files,
  carried,
}: CheckpointResult): string[] {
  const ratio = storedBytes === 0 ? 1 : rawBytes / storedBytes;
  const mib = (bytes: number): string => `${(bytes / 1048576).toFixed(1)} MiB`;
  const lines = [
    `Checkpoint ${generation} complete: ${mib(rawBytes)}, ratio ${ratio.toFixed(1)}, ` +
      `frozen ${(frozenMs / 1000).toFixed(3)}s, durable after ${(durableMs / 1000).toFixed(3)}s`,
  ];
  if (files !== null && files.entries > 1) {
    lines.push(`The image has ${files.entries} preserved files and directories, ${mib(files.dataBytes)}`);
  }
  if (carried !== null) {
    lines.push(`The image carries ${carried.files} files that are only read, ${mib(carried.dataBytes)}`);
  }
  return lines;
}
