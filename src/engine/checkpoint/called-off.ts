// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';

export function refuseIfCalledOff(signal: AbortSignal): void {
  if (signal.aborted) throw calledOff();
}

export function calledOff(): FastFreezeError {
  return new FastFreezeError({
    code: 'aborted',
    op: 'finish the checkpoint',
    reason: 'whoever asked for it has gone',
    hint: 'the application runs on; ask again',
  });
}
