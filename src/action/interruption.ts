// SPDX-License-Identifier: Apache-2.0
import { info, warning } from '@actions/core';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import { type EngineHandle, tellToLeave } from './engine-process.js';
import { saveInterruption } from './handover.js';

/**
 * After a signal, for the engine to end before we leave: the runner sends SIGTERM 7.5 s after SIGINT, and a small job is safe long before.
 * What takes longer is waited for by the post step.
 */
const HANDOVER_WAIT_MS = 5_000;

export interface Interruption {
  readonly came: () => boolean;
  /** Aborted when a signal comes. */
  readonly begun: AbortSignal;
  /** Aborted when a signal has come and the engine has had its time. */
  readonly patience: AbortSignal;
  /** Throws when a signal has come already. */
  readonly refuse: () => void;
  /** From now on a signal is the engine's to act on. */
  readonly leaveBy: (engine: EngineHandle) => void;
}

/** SIGINT is a cancelled job, or a step that took too long; the runner's SIGTERM follows it. */
export function catchInterruption(): Interruption {
  const patience = new AbortController();
  const begun = new AbortController();
  let engine: EngineHandle | undefined;
  let came = false;
  const act = (): void => {
    if (engine === undefined) return;
    tellToLeave(engine).catch((error: unknown) =>
      warning(asFastFreezeError(error, 'tell the engine to leave').message),
    );
    setTimeout(() => patience.abort(), HANDOVER_WAIT_MS).unref();
  };
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (came) {
        patience.abort();
        return;
      }
      came = true;
      saveInterruption(Date.now());
      info(`${name}: the command is being frozen`);
      act();
      begun.abort();
    });
  }
  return {
    came: () => came,
    begun: begun.signal,
    patience: patience.signal,
    refuse: () => {
      if (!came) return;
      throw new FastFreezeError({
        code: 'aborted',
        op: 'start the command',
        reason: 'the step was told to end before',
        hint: 'run the job again',
      });
    },
    leaveBy: (handle) => {
      engine = handle;
      if (came) act();
    },
  };
}
