// SPDX-License-Identifier: Apache-2.0
import { getState, saveState } from '@actions/core';
import type { EngineHandle } from './engine-process.js';

/** What main leaves to the post step. */
export interface Handover {
  readonly engine: EngineHandle;
  readonly imageUrl: string;
  readonly jobId: string;
  /** When the job's time is up, as far as is known. */
  readonly jobEndsAtMs: number;
}

const ENGINE = 'engine';
const INTERRUPTED = 'interrupted-at';
const SHOWN = 'shown';
const SETTLED = 'settled';

export function saveHandover(handover: Handover): void {
  saveState(ENGINE, handover);
}

/** A signal has come; written at once, since the next moment may be our last. */
export function saveInterruption(nowMs: number): void {
  saveState(INTERRUPTED, nowMs);
}

/** Of the engine's output, in bytes. */
export function saveShown(bytes: number): void {
  saveState(SHOWN, bytes);
}

/** Nothing is left to do. */
export function saveSettled(): void {
  saveState(SETTLED, true);
}

/** Undefined where main had not come so far, or has seen to everything. */
export function readHandover(): Found | undefined {
  const text = getState(ENGINE);
  if (text === '' || getState(SETTLED) !== '') return undefined;
  const interrupted = getState(INTERRUPTED);
  return {
    handover: JSON.parse(text) as Handover,
    interruptedAtMs: interrupted === '' ? undefined : Number(interrupted),
    shownBytes: Number(getState(SHOWN)),
  };
}

export interface Found {
  readonly handover: Handover;
  /** Undefined: main was killed without a word. */
  readonly interruptedAtMs: number | undefined;
  readonly shownBytes: number;
}
