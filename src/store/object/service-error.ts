// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, type ErrorCode } from '../../base/errors.js';

/** A request to a cloud that failed. */
export interface ServiceCall {
  readonly op: string;
  readonly subject: string;
  readonly bucket: string;
  /** The caller has ended it. */
  readonly aborted: boolean;
  readonly timedOut: boolean;
}

export interface Cause {
  /** `store` where it is left out. */
  readonly code?: ErrorCode;
  readonly reason: string;
  readonly hint?: string;
  readonly passing?: boolean;
}

/** What went wrong with a request, in our words, with a remedy; `causeOf` knows the service's words. */
export function serviceError(error: unknown, call: ServiceCall, causeOf: () => Cause): FastFreezeError {
  if (error instanceof FastFreezeError) return error;
  const { code = 'store', reason, hint, passing = false } = endedBy(call) ?? causeOf();
  return new FastFreezeError({
    code,
    op: call.op,
    subject: call.subject,
    reason,
    ...(hint === undefined ? {} : { hint }),
    passing,
    cause: error,
  });
}

function endedBy(call: ServiceCall): Cause | undefined {
  if (call.aborted) return { code: 'aborted', reason: 'asked to stop' };
  return call.timedOut ? { reason: 'the service did not answer in time', passing: true } : undefined;
}
