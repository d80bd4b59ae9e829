// SPDX-License-Identifier: Apache-2.0
import type { Notice } from './notice.js';
import { type Estimate, checkpointIntervalMs, lastStartMs } from './planner.js';

/** Everything that a decision depends on. Times are milliseconds since the epoch. */
export interface Situation {
  readonly nowMs: number;
  /** What all sources say at present. */
  readonly notices: readonly Notice[];
  readonly expected: Estimate;
  /** The last checkpoint ended then, or the application began to run. */
  readonly lastSaveMs: number;
  /** Undefined: no checkpoints by timer. */
  readonly mttpMs: number | undefined;
}

export type Decision =
  | { readonly act: 'stop'; readonly reason: string }
  | { readonly act: 'save'; readonly reason: string }
  /** Look again by then. Undefined: nothing is due. */
  | { readonly act: 'wait'; readonly untilMs: number | undefined };

/** Freeze the job and leave, save it and let it run, or wait. Pure; stopping goes before saving. */
export function decide(situation: Situation): Decision {
  const { nowMs, notices, expected, mttpMs } = situation;
  let stopMs = Infinity;
  let reason = '';
  for (const notice of notices) {
    if (notice.what === 'hint') continue;
    const atMs = notice.what === 'stop-now' ? -Infinity : lastStartMs(notice.deadline, expected);
    if (atMs >= stopMs) continue;
    stopMs = atMs;
    reason = notice.detail;
  }
  if (stopMs <= nowMs) return { act: 'stop', reason };
  const hint = notices.find((notice) => notice.what === 'hint');
  // A save that would still be under way when the job must be stopped only delays that.
  const hasRoom = nowMs + expected.durableMs <= stopMs;
  if (hint !== undefined && hasRoom) return { act: 'save', reason: hint.detail };
  const saveMs = mttpMs === undefined ? Infinity : situation.lastSaveMs + checkpointIntervalMs(expected, mttpMs);
  if (saveMs <= nowMs && hasRoom) return { act: 'save', reason: 'timer' };
  const untilMs = Math.min(stopMs, saveMs > nowMs ? saveMs : Infinity);
  return { act: 'wait', untilMs: untilMs === Infinity ? undefined : untilMs };
}
