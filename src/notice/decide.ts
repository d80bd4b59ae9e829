// SPDX-License-Identifier: Apache-2.0
import type { Notice } from './notice.js';
import { type Estimate, checkpointIntervalMs, lastStartMs } from './planner.js';

/** Everything that a decision depends on. Times are milliseconds since the epoch. */
export interface Situation {
  readonly nowMs: number;
  /** What sources say at present, and did not say yet when the application began to run. */
  readonly notices: readonly Notice[];
  /** What they have said since then. */
  readonly standing: readonly Notice[];
  readonly expected: Estimate;
  /** The application began to run, in this attempt. */
  readonly readyMs: number;
  /** The last checkpoint ended then, or the application began to run. */
  readonly lastSaveMs: number;
  /** No save before then, since the last one failed. */
  readonly savesFromMs: number;
  /** Undefined: no checkpoints by timer, but for `everyMs`. */
  readonly mttpMs: number | undefined;
  /** The interval between two of them, where somebody has chosen one. */
  readonly everyMs?: number;
}

export type Decision =
  | { readonly act: 'stop'; readonly reason: string }
  | { readonly act: 'save'; readonly reason: string }
  /** Look again by then. Undefined: nothing is due. */
  | { readonly act: 'wait'; readonly untilMs: number | undefined };

/** What a job gets done in each attempt, however many of them the same notice stops. */
export const MIN_RUN_MS = 60_000;
/** After a checkpoint that failed; doubled each time. */
const RETRY_MS = 2_000;
const MOST_RETRY_MS = 30_000;
const LEAST_RETRY_MS = 500;

/** Freeze the job and leave, save it and let it run, or wait. Pure; stopping goes before saving. */
export function decide(situation: Situation): Decision {
  const { nowMs, notices, standing, expected, mttpMs } = situation;
  let stopMs = Infinity;
  let reason = '';
  const stopBy = (atMs: number, { detail }: Notice): void => {
    if (atMs >= stopMs) return;
    stopMs = atMs;
    reason = detail;
  };
  for (const notice of notices) stopBy(stopMoment(notice, expected), notice);
  for (const notice of standing) stopBy(heldMoment(notice, situation), notice);
  if (stopMs <= nowMs) return { act: 'stop', reason };
  const hint = [...notices, ...standing].find((notice) => notice.what === 'hint');
  const plannedMs = mttpMs === undefined ? Infinity : checkpointIntervalMs(expected, mttpMs);
  const timerMs = situation.lastSaveMs + (situation.everyMs ?? plannedMs);
  const saveMs = Math.max(hint === undefined ? timerMs : -Infinity, situation.savesFromMs);
  // A save that would still be under way when the job must be stopped only delays that.
  const hasRoom = nowMs + expected.durableMs <= stopMs;
  if (saveMs <= nowMs && hasRoom) return { act: 'save', reason: hint?.detail ?? 'timer' };
  const untilMs = Math.min(stopMs, saveMs > nowMs ? saveMs : Infinity);
  return { act: 'wait', untilMs: untilMs === Infinity ? undefined : untilMs };
}

/**
 * After the failure of an attempt, which `before` others failed before: until the next. `leftMs` until the machine goes or
 * the limit is reached, if ever: half of that is used for another attempt.
 */
export function retryMs(before: number, leftMs = Infinity): number {
  const waitMs = Math.min(MOST_RETRY_MS, RETRY_MS * 2 ** before);
  return leftMs <= 0 ? waitMs : Math.min(waitMs, Math.max(LEAST_RETRY_MS, leftMs / 2));
}

function stopMoment(notice: Notice, expected: Estimate): number {
  if (notice.what === 'hint') return Infinity;
  return notice.what === 'stop-now' ? -Infinity : lastStartMs(notice.deadline, expected);
}

/**
 * For a notice that stood there at the start: if it stopped each attempt at once, all retries would be gone without any
 * work done. So the job runs for a while first, unless the last moment to start comes before; what it then may lose is no
 * more than that while.
 */
function heldMoment(notice: Notice, { expected, readyMs }: Situation): number {
  const usualMs = stopMoment(notice, expected);
  if (notice.what !== 'stop') return usualMs;
  const { atMs, kind } = notice.deadline;
  const heldMs = readyMs + MIN_RUN_MS;
  const lastMs = lastStartMs({ atMs, kind: 'limit' }, expected);
  if (lastMs > readyMs) return Math.max(usualMs, Math.min(heldMs, lastMs));
  // A limit that is still to come ends the job, perhaps for good. A machine that is taken away takes nothing yet.
  return kind === 'limit' && atMs > readyMs ? usualMs : heldMs;
}
