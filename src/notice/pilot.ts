// SPDX-License-Identifier: Apache-2.0
import { asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { Pilot, RunningJob } from '../engine/pilot.js';
import { type Decision, decide } from './decide.js';
import { type Notice, type NoticeSource, pause } from './notice.js';
import { ASSUMED_MTTP_MS, type Estimate, checkpointIntervalMs, estimate, fitsWindow, neededMs } from './planner.js';

export interface PilotOptions {
  readonly sources: readonly NoticeSource[];
  /** They mean: freeze now, and leave. */
  readonly stopSignals: readonly NodeJS.Signals[];
  /** From such a signal to the end; undefined where it is not known. */
  readonly signalWindowMs?: number;
  /** Checkpoints by timer: always, where a notice comes too late for the application's size, or not. */
  readonly timer: 'always' | 'when-needed' | 'never';
  readonly meanTimeToPreemptionMs?: number;
  readonly log: Logger;
}

/** How often the application's size is looked at while something is due: at a tenth of the time that is left. */
const LEAST_LOOK_MS = 200;
const MOST_LOOK_MS = 60_000;
/** After a checkpoint that failed; doubled each time. */
const RETRY_MS = 2_000;
const MOST_RETRY_MS = 30_000;
const END_MS = 500;

/** Listens to the sources, and freezes the job in time. */
export function createPilot(options: PilotOptions): Pilot {
  const pilot = new NoticePilot(options);
  pilot.listen();
  return pilot;
}

class NoticePilot implements Pilot {
  private readonly notices = new Map<NoticeSource | 'signal', Notice>();
  private readonly ending = new AbortController();
  private watching: Promise<unknown> = Promise.resolve();
  private job: RunningJob | undefined;
  private timer: NodeJS.Timeout | undefined;
  private looking = false;
  private again = false;
  private lastSaveMs = 0;
  private failures = 0;
  private toldTimer = false;
  /** By us: nothing is left to look at. */
  private stopped = false;

  constructor(private readonly options: PilotOptions) {}

  listen(): void {
    const watches = this.options.sources.map((source) =>
      source.watch({
        report: (notice) => this.hear(source, notice),
        problem: (message) => this.options.log.warn(message),
        signal: this.ending.signal,
      }),
    );
    this.watching = Promise.all(watches).catch((error: unknown) => {
      this.options.log.warn(`a source of notices has failed: ${asFastFreezeError(error, 'listen').message}`);
    });
  }

  ready(job: RunningJob): void {
    this.job = job;
    this.lastSaveMs = Date.now();
    this.look();
  }

  signal(name: NodeJS.Signals): boolean {
    if (!this.options.stopSignals.includes(name)) return false;
    this.hear('signal', { what: 'stop-now', detail: `${name} came` });
    return true;
  }

  async stop(): Promise<void> {
    this.ending.abort();
    clearTimeout(this.timer);
    await this.watching;
  }

  private hear(source: NoticeSource | 'signal', notice: Notice | undefined): void {
    const before = this.notices.get(source);
    if (notice === undefined) this.notices.delete(source);
    else this.notices.set(source, notice);
    if (before?.detail === notice?.detail) return;
    this.options.log.info(notice === undefined ? `Withdrawn: ${before?.detail ?? ''}` : `Notice: ${notice.detail}`);
    this.look();
  }

  /** One look at a time; what comes meanwhile is looked at right after. */
  private look(): void {
    clearTimeout(this.timer);
    if (this.job === undefined || this.stopped || this.ending.signal.aborted) return;
    if (this.looking) {
      this.again = true;
      return;
    }
    this.looking = true;
    void this.lookOnce(this.job).then((waitMs) => {
      this.looking = false;
      if (this.ending.signal.aborted) return;
      if (this.again || waitMs !== undefined) this.timer = setTimeout(() => this.look(), this.again ? 0 : waitMs);
      this.again = false;
    });
  }

  /** Resolves to when to look again, from now; undefined when only a notice can change anything. */
  private async lookOnce(job: RunningJob): Promise<number | undefined> {
    if (this.notices.size === 0 && !this.mayNeedTimer()) return undefined;
    try {
      const { residentBytes, pace } = await job.status();
      const expected = estimate(residentBytes, pace ?? undefined);
      const mttpMs = this.timerMttpMs(expected);
      const nowMs = Date.now();
      const notices = [...this.notices.values()];
      const decision = decide({ nowMs, notices, expected, lastSaveMs: this.lastSaveMs, mttpMs });
      if (decision.act !== 'wait') return await this.act(job, decision);
      if (decision.untilMs === undefined) return this.mayNeedTimer() ? MOST_LOOK_MS : undefined;
      const leftMs = decision.untilMs - nowMs;
      return Math.min(leftMs, Math.max(LEAST_LOOK_MS, Math.min(MOST_LOOK_MS, leftMs / 10)));
    } catch (error) {
      return await this.failed('look at the job', error);
    }
  }

  private async act(job: RunningJob, decision: Exclude<Decision, { act: 'wait' }>): Promise<number | undefined> {
    const leaveRunning = decision.act === 'save';
    // What it asks for is done with this; if it fails, the timer and the next notice remain.
    for (const [source, notice] of this.notices) if (notice.what === 'hint') this.notices.delete(source);
    try {
      await job.checkpoint({ leaveRunning, source: decision.reason });
      this.failures = 0;
      this.lastSaveMs = Date.now();
      this.stopped = !leaveRunning;
      return leaveRunning ? 0 : undefined;
    } catch (error) {
      this.lastSaveMs = Date.now();
      return await this.failed(leaveRunning ? 'save the application' : 'freeze the application in time', error);
    }
  }

  private async failed(what: string, error: unknown): Promise<number | undefined> {
    // A job that has ended cannot be asked, which is no failure; in a moment we are told that it has.
    await pause(END_MS, this.ending.signal);
    if (this.ending.signal.aborted) return undefined;
    const known = asFastFreezeError(error, what);
    const waitMs = Math.min(MOST_RETRY_MS, RETRY_MS * 2 ** this.failures);
    this.failures += 1;
    this.options.log.error(`${known.message}. The application runs on; trying again in ${waitMs / 1000} s`, known.hint);
    return waitMs;
  }

  private mayNeedTimer(): boolean {
    return this.options.timer === 'always' || (this.options.timer === 'when-needed' && this.windowMs() !== undefined);
  }

  /** The shortest time that any source gives. */
  private windowMs(): number | undefined {
    const { sources, signalWindowMs, stopSignals } = this.options;
    const windows = sources.flatMap(({ windowMs }) => windowMs ?? []);
    if (stopSignals.length > 0 && signalWindowMs !== undefined) windows.push(signalWindowMs);
    return windows.length === 0 ? undefined : Math.min(...windows);
  }

  /** Undefined when no checkpoints by timer are to be made now. */
  private timerMttpMs(expected: Estimate): number | undefined {
    const { timer, meanTimeToPreemptionMs = ASSUMED_MTTP_MS, log } = this.options;
    const windowMs = this.windowMs();
    const tooLate = windowMs !== undefined && !fitsWindow(windowMs, expected);
    if (timer === 'never' || (timer === 'when-needed' && !tooLate)) return undefined;
    if (!this.toldTimer) {
      this.toldTimer = true;
      const every = seconds(checkpointIntervalMs(expected, meanTimeToPreemptionMs));
      const what = `checkpoints every ${every} or so: they cost ${seconds(expected.frozenMs)} each, by what is known now`;
      if (timer === 'always') log.info(`Planning ${what}`);
      else {
        log.warn(
          `a notice leaves ${seconds(windowMs ?? 0)}, and a checkpoint of this application needs ${seconds(neededMs(expected))}: ` +
            `falling back to ${what}. After a preemption, the work since the last of them is done again`,
        );
      }
    }
    return meanTimeToPreemptionMs;
  }
}

function seconds(durationMs: number): string {
  return durationMs < 10_000 ? `${(durationMs / 1000).toFixed(1)} s` : `${Math.round(durationMs / 1000)} s`;
}
