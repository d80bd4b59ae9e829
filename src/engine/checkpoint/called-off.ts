// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';

/** A checkpoint that can be given up: whoever asked for it may go, or nothing move any more. */
export interface CallingOff {
  /** Aborted with the FastFreezeError that says why. */
  readonly signal: AbortSignal;
  readonly callOff: (reason: FastFreezeError) => void;
  /** Whoever asked for it is not listened to any more. */
  readonly close: () => void;
}

export function callingOff(client: AbortSignal): CallingOff {
  const controller = new AbortController();
  const onGone = (): void => controller.abort(clientGone());
  client.addEventListener('abort', onGone);
  if (client.aborted) onGone();
  return {
    signal: controller.signal,
    callOff: (reason) => controller.abort(reason),
    close: () => client.removeEventListener('abort', onGone),
  };
}

export function refuseIfCalledOff(signal: AbortSignal): void {
  if (signal.aborted) throw reasonOf(signal);
}

/** Wait for a step, until the checkpoint is called off. The step may go on then, and nobody hears how it ends. */
export async function unlessCalledOff<T>(signal: AbortSignal, step: Promise<T>): Promise<T> {
  let onAbort = (): void => undefined;
  const calledOff = new Promise<never>((_, reject) => {
    onAbort = () => reject(reasonOf(signal));
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([step, calledOff]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

export function reasonOf(signal: AbortSignal): FastFreezeError {
  return asFastFreezeError(signal.reason, 'finish the checkpoint');
}

function clientGone(): FastFreezeError {
  return new FastFreezeError({
    code: 'aborted',
    op: 'finish the checkpoint',
    reason: 'whoever asked for it has gone',
    hint: 'the application runs on; ask again',
  });
}
