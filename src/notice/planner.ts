// SPDX-License-Identifier: Apache-2.0
import { ASSUMED_COPY_PACE, ASSUMED_PACE, type CopyPace, type Pace } from '../engine/pace.js';

// Pure functions; docs/planner.md has the formulas and their reasons.

/** What a checkpoint of the application, as large as it is now, is expected to take. */
export interface Estimate {
  readonly imageBytes: number;
  /** That the application stands still. */
  readonly frozenMs: number;
  /** From the request until the image is durable. */
  readonly durableMs: number;
}

/** Time is kept free for what an estimate gets wrong: half of it, and what does not depend on it. */
export const SAFETY_FACTOR = 1.5;
export const SAFETY_MARGIN_MS = 2_000;
/** Machines that are taken away go when they are told to, or before. A time limit is kept to the second. */
export const TAKEN_AWAY_SLACK_MS = 120_000;
/** The mean time to a preemption that is assumed where none is given. */
export const ASSUMED_MTTP_MS = 6 * 3_600_000;

const MIN_INTERVAL_MS = 1_000;
const MIN_COST_MS = 10;

/** Images get to a spool first, and it is nobody else's task to bring them from there to where they belong. */
export interface OwnUpload {
  /** What must get there before. */
  readonly waitingBytes: number;
  /** As far as this machine knows; else what the job's images say. */
  readonly pace: CopyPace | undefined;
}

/**
 * `residentBytes` is the application's memory; without a pace, careful assumptions stand for it. With an upload of our own
 * an image is durable at the end of that.
 */
export function estimate(residentBytes: number, pace: Pace = ASSUMED_PACE, upload?: OwnUpload): Estimate {
  const imageBytes = residentBytes + pace.besideBytes;
  const captureMs = (imageBytes / pace.captureBytesPerSecond) * 1000;
  const uploadMs = ((imageBytes * pace.storedRatio) / pace.uploadBytesPerSecond) * 1000;
  const frozenMs = Math.ceil(pace.pauseMs + captureMs);
  const writtenMs = pace.fixedMs + Math.max(frozenMs, uploadMs);
  const copyMs = upload === undefined ? 0 : copyingMs(imageBytes * pace.storedRatio, pace, upload);
  return { imageBytes, frozenMs, durableMs: Math.ceil(writtenMs + copyMs) };
}

/** One after the other: a copy begins when the image is whole, and is not alone while an older one is under way. */
function copyingMs(storedBytes: number, pace: Pace, upload: OwnUpload): number {
  const { fixedMs, bytesPerSecond } = upload.pace ?? pace.copying ?? ASSUMED_COPY_PACE;
  return fixedMs + ((storedBytes + upload.waitingBytes) / bytesPerSecond) * 1000;
}

/** What has to be left of a window for a checkpoint to be safe in it. */
export function neededMs({ durableMs }: Estimate): number {
  return Math.ceil(SAFETY_FACTOR * durableMs) + SAFETY_MARGIN_MS;
}

export function fitsWindow(windowMs: number, expected: Estimate): boolean {
  return neededMs(expected) <= windowMs;
}

/** A moment at which the application must be safe. Milliseconds since the epoch. */
export interface Deadline {
  readonly atMs: number;
  /** `limit`: kept to the second. `taken-away`: it may come sooner. */
  readonly kind: 'limit' | 'taken-away';
}

/** The last moment to start a checkpoint that is to be durable by then; it may have passed. */
export function lastStartMs(deadline: Deadline, expected: Estimate): number {
  const slackMs = deadline.kind === 'limit' ? 0 : TAKEN_AWAY_SLACK_MS;
  return deadline.atMs - slackMs - neededMs(expected);
}

/**
 * How long the application should run between two checkpoints: Daly's higher-order estimate of the interval that loses
 * least, for checkpoints that cost it the time that it is frozen, and machines that are lost every `mttpMs` on average.
 * Never shorter than it takes to make one durable.
 */
export function checkpointIntervalMs(expected: Estimate, mttpMs: number): number {
  const costMs = Math.max(expected.frozenMs, MIN_COST_MS);
  const optimumMs = costMs < 2 * mttpMs ? daly(costMs, mttpMs) : mttpMs;
  return Math.ceil(Math.max(optimumMs, expected.durableMs, MIN_INTERVAL_MS));
}

function daly(costMs: number, mttpMs: number): number {
  const half = costMs / (2 * mttpMs);
  return Math.sqrt(2 * costMs * mttpMs) * (1 + Math.sqrt(half) / 3 + half / 9) - costMs;
}
