// SPDX-License-Identifier: Apache-2.0
import { asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { Pilot, RunningJob } from '../engine/pilot.js';
import { type Decision, decide, retryMs } from './decide.js';
import { type Notice, type NoticeSource, pause } from './notice.js';
import {
  ASSUMED_MTTP_MS,
  type Estimate,
  type OwnUpload,
  checkpointIntervalMs,
  estimate,
  fitsWindow,
  neededMs,
} from './planner.js';

export interface PilotOptions {
  readonly sources: readonly NoticeSource[];
  /** They mean: freeze now, and leave. */
  readonly stopSignals: readonly NodeJS.Signals[];
  /** From such a signal to the end; undefined where it is not known. */
  readonly signalWindowMs?: number;
  /** Checkpoints by timer: always, where a notice comes too late for the application's size, or not. */
  readonly timer: 'always' | 'when-needed' | 'never';
  /** Checkpoints by timer at this interval, whatever `timer` says. */
  readonly everyMs?: number;
  readonly meanTimeToPreemptionMs?: number;
  /** Asked at each look; undefined while somebody else sees to it that images get out of the spool, or there is none. */
  readonly upload?: () => OwnUpload | undefined;
  readonly log: Logger;
}

/** How often the application's size is looked at while something is due: at a tenth of the time that is left. */
const LEAST_LOOK_MS = 200;
const MOST_LOOK_MS = 60_000;
const END_MS = 500;
/** For sources that do not end when they are told to: the job's exit does not wait for them. */
const MOST_STOP_MS = 5_000;

type Speaker = NoticeSource | 'signal';

/** What a source says at present. */
interface Heard {
  readonly notice: Notice | undefined;
  /** It said so when it was first asked, or before the application was ready. */
  readonly isStanding: boolean;
}

const ATTEMPTS = {
  look: 'look at the job',
  save: 'save the application',
  stop: 'freeze the application in time',
} as const;

/** Listens to the sources, and freezes the job in time. */
export function createPilot(options: PilotOptions): Pilot {
  const pilot = new NoticePilot(options);
  pilot.listen();
  return pilot;
}

class NoticePilot implements Pilot {
  private readonly heard = new Map<Speaker, Heard>();
  private readonly ending = new AbortController();
  private watching: Promise<unknown> = Promise.resolve();
  private job: RunningJob | undefined;
  private timer: NodeJS.Timeout | undefined;
  private looking = false;
  private again = false;
  private readyMs = 0;
  private lastSaveMs = 0;
  private savesFromMs = 0;
  /** In a row, of one kind. */
  private failures: { readonly of: keyof typeof ATTEMPTS; readonly times: number } = { of: 'look', times: 0 };
  /** During a checkpoint, and after one that failed: only what is new is looked at sooner. */
  private pausesUntilMs = 0;
  private toldTimer = false;
  /** By us: nothing is left to look at. */
  private stopped = false;

  constructor(private readonly options: PilotOptions) {}

  listen(): void {
    const watches = this.options.sources.map(async (source) => {
      await source.watch({
        report: (notice) => this.hear(source, notice),
        problem: (message) => this.options.log.warn(message),
        signal: this.ending.signal,
      });
    });
    this.watching = Promise.all(watches).catch((error: unknown) => {
      this.options.log.warn(`a source of notices has failed: ${asFastFreezeError(error, 'listen').message}`);
    });
  }

  ready(job: RunningJob): void {
    this.job = job;
    this.readyMs = Date.now();
    this.lastSaveMs = this.readyMs;
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
    const ended = new AbortController();
    await Promise.race([this.watching.then(() => ended.abort()), pause(MOST_STOP_MS, ended.signal)]);
  }

  private hear(source: Speaker, notice: Notice | undefined): void {
    const last = this.heard.get(source);
    const before = last?.notice;
    const isSameKind = before?.what === notice?.what;
    const isAtStart = this.job === undefined || last === undefined;
    // The same again is no news, and its deadline is the one that was told first.
    if (last === undefined || before?.detail !== notice?.detail) {
      this.heard.set(source, { notice, isStanding: isAtStart || (isSameKind && last.isStanding) });
    }
    if (before?.detail === notice?.detail) return;
    this.options.log.info(notice === undefined ? `Withdrawn: ${before?.detail ?? ''}` : `Notice: ${notice.detail}`);
    if (!isSameKind || Date.now() >= this.pausesUntilMs) this.look();
  }

  private said(isStanding: boolean): Notice[] {
    return [...this.heard.values()].flatMap((one) => (one.isStanding === isStanding ? (one.notice ?? []) : []));
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
    this.pausesUntilMs = 0;
    const isQuiet = [...this.heard.values()].every(({ notice }) => notice === undefined);
    if (isQuiet && !this.mayNeedTimer()) return undefined;
    try {
      const { residentBytes, pace } = await job.status();
      const expected = estimate(residentBytes, pace ?? undefined, this.options.upload?.());
      const mttpMs = this.timerMttpMs(expected);
      const nowMs = Date.now();
      const [notices, standing] = [this.said(false), this.said(true)];
      const { readyMs, lastSaveMs, savesFromMs } = this;
      const { everyMs } = this.options;
      const interval = everyMs === undefined ? {} : { everyMs };
      const times = { nowMs, readyMs, lastSaveMs, savesFromMs, mttpMs, ...interval };
      const decision = decide({ notices, standing, expected, ...times });
      if (decision.act !== 'wait') return await this.act(job, decision);
      if (decision.untilMs === undefined) return this.mayNeedTimer() ? MOST_LOOK_MS : undefined;
      const leftMs = decision.untilMs - nowMs;
      return Math.min(leftMs, Math.max(LEAST_LOOK_MS, Math.min(MOST_LOOK_MS, leftMs / 10)));
    } catch (error) {
      return await this.failed('look', error);
    }
  }

  private async act(job: RunningJob, decision: Exclude<Decision, { act: 'wait' }>): Promise<number | undefined> {
    const leaveRunning = decision.act === 'save';
    this.pausesUntilMs = Infinity;
    const hints = [...this.heard].filter(([, { notice }]) => notice?.what === 'hint');
    try {
      await job.checkpoint({ leaveRunning, source: decision.reason });
      this.failures = { of: 'save', times: 0 };
      this.lastSaveMs = Date.now();
      // What they asked for is done.
      for (const [source, one] of hints) {
        if (this.heard.get(source) === one) this.heard.set(source, { notice: undefined, isStanding: false });
      }
      this.stopped = !leaveRunning;
      return leaveRunning ? 0 : undefined;
    } catch (error) {
      return await this.failed(decision.act, error);
    }
  }

  /** Resolves to when to look again, from now. */
  private async failed(of: keyof typeof ATTEMPTS, error: unknown): Promise<number | undefined> {
    this.pausesUntilMs = Infinity;
    // A job that has ended cannot be asked, which is no failure; in a moment we are told that it has.
    await pause(END_MS, this.ending.signal);
    if (this.ending.signal.aborted) return undefined;
    const before = this.failures.of === of ? this.failures.times : 0;
    this.failures = { of, times: before + 1 };
    const nowMs = Date.now();
    const waitMs = retryMs(before, of === 'save' ? Infinity : this.leftMs(nowMs));
    const known = asFastFreezeError(error, ATTEMPTS[of]);
    const retry = `trying again in ${Math.ceil(waitMs / 100) / 10} s`;
    this.options.log.error(`${known.message}. The application runs on; ${retry}`, known.hint);
    if (of === 'save') {
      // Only saves have to wait; a stop may be due before.
      this.savesFromMs = nowMs + waitMs;
      return 0;
    }
    this.pausesUntilMs = nowMs + waitMs;
    return waitMs;
  }

  /** Until the soonest deadline. */
  private leftMs(nowMs: number): number {
    const all = [...this.heard.values()].flatMap(({ notice }) => (notice?.what === 'stop' ? notice.deadline.atMs : []));
    return Math.min(...all) - nowMs;
  }

  private mayNeedTimer(): boolean {
    const { timer, everyMs } = this.options;
    return everyMs !== undefined || timer === 'always' || (timer === 'when-needed' && this.windowMs() !== undefined);
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
