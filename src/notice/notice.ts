// SPDX-License-Identifier: Apache-2.0
import { asFastFreezeError } from '../base/errors.js';
import { after } from '../base/timers.js';
import type { Deadline } from './planner.js';

/** Something said that the job should be safe. */
export type Notice =
  /** The job will be ended at `deadline`; freeze it and leave in time. */
  | { readonly what: 'stop'; readonly deadline: Deadline; readonly detail: string }
  /** Whoever said it wants it now, and has chosen the moment. */
  | { readonly what: 'stop-now'; readonly detail: string }
  /** The machine may go soon: a checkpoint, and the job runs on. */
  | { readonly what: 'hint'; readonly detail: string };

/** Milliseconds since the epoch; injected, so that tests need not wait. */
export type Clock = () => number;

export interface SourceTools {
  /**
   * What holds now: a later notice replaces an earlier one of the same source; undefined: there is none, or it was
   * withdrawn. The first report of a source tells what stood there already when it was first asked.
   */
  readonly report: (notice: Notice | undefined) => void;
  /** The source does not work, or works again. Said once for each change. */
  readonly problem: (message: string) => void;
  /** Ends the watching. */
  readonly signal: AbortSignal;
}

/** Where notices come from. */
export interface NoticeSource {
  /** For messages and `explain`: `EC2 spot interruption`. */
  readonly name: string;
  /** How long before the end it tells, at least; undefined where there is no telling. */
  readonly windowMs?: number;
  /** Resolves when the signal is aborted, or when nothing more can come. Failures are told to `problem`, never thrown. */
  watch(tools: SourceTools): Promise<void>;
}

/** Waits; ends early, without an error, when the signal is aborted. */
export async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const end = (): void => {
      stop();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const stop = after(durationMs, end);
    signal.addEventListener('abort', end);
  });
}

/** One look after the other until the end. */
export interface Polling {
  readonly everyMs: number;
  /** Resolves to `done` when nothing more can come. What it throws is a problem, and does not end the polling. */
  readonly look: () => Promise<'done' | 'more'>;
  /** The problem in words. */
  readonly explain: (error: unknown) => string;
}

/** What does not answer is asked less and less, but never so seldom that a notice of two minutes would be missed. */
const MOST_SLOWER = 10;
const MOST_PAUSE_MS = 30_000;

/** Until the next look, after so many in a row that failed. */
export function pauseMs(everyMs: number, failures: number): number {
  return Math.min(everyMs * Math.min(MOST_SLOWER, 2 ** failures), Math.max(everyMs, MOST_PAUSE_MS));
}

export async function poll(tools: SourceTools, polling: Polling): Promise<void> {
  const { signal } = tools;
  const tell = onChange(tools.problem);
  let failures = 0;
  while (!hasEnded(signal)) {
    try {
      if ((await polling.look()) === 'done') return;
      tell(undefined);
      failures = 0;
    } catch (error) {
      if (hasEnded(signal)) return;
      tell(polling.explain(error));
      failures += 1;
    }
    await pause(pauseMs(polling.everyMs, failures), signal);
  }
}

/** A call, since it changes while one waits. */
export function hasEnded(signal: AbortSignal): boolean {
  return signal.aborted;
}

export function reasonOf(error: unknown): string {
  return asFastFreezeError(error, 'listen').reason;
}

/** Says each change of a source's health once, however often it is tried. */
export function onChange(say: (message: string) => void): (message: string | undefined) => void {
  let last: string | undefined;
  return (message) => {
    if (message === last) return;
    last = message;
    if (message !== undefined) say(message);
  };
}
