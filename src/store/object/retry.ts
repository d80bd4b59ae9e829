// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import type { CallOptions, ObjectClient } from './object-client.js';

export interface RetryOptions {
  /** From the first try of a request to the last; unlimited tries within it. */
  readonly deadlineMs?: number;
  /** The longest wait between two tries. */
  readonly maxDelayMs?: number;
  /** For tests: 0 to 1, as `Math.random`. */
  readonly random?: () => number;
}

const FIRST_DELAY_MS = 100;

/**
 * A client that tries a request again while its failure is a passing one: exponential delays with full jitter, so that
 * many jobs whose service has stumbled do not all come back at once.
 */
export function withRetries(client: ObjectClient, options: RetryOptions = {}): ObjectClient {
  const { deadlineMs = 120_000, maxDelayMs = 8_000, random = Math.random } = options;

  const again = async <T>({ signal }: CallOptions, attempt: () => Promise<T>): Promise<T> => {
    const endMs = performance.now() + deadlineMs;
    for (let tries = 1; ; tries++) {
      try {
        return await attempt();
      } catch (error) {
        const delayMs = random() * Math.min(maxDelayMs, FIRST_DELAY_MS * 2 ** tries);
        if (!isPassing(error) || isOver(signal)) throw error;
        if (performance.now() + delayMs > endMs) throw givenUp(error, tries, deadlineMs);
        await sleep(delayMs, signal);
        if (isOver(signal)) throw error;
      }
    }
  };

  return {
    url: client.url,
    maxParallelParts: client.maxParallelParts,
    put: (name, bytes, o) => again(o, () => client.put(name, bytes, o)),
    get: (name, offset, into, o) => again(o, () => client.get(name, offset, into, o)),
    head: (name, o) => again(o, () => client.head(name, o)),
    list: (prefix, o) => again(o, () => client.list(prefix, o)),
    remove: (name, o) => again(o, () => client.remove(name, o)),
    beginUpload: (name, o) => again(o, () => client.beginUpload(name, o)),
    putPart: (upload, part, bytes, o) => again(o, () => client.putPart(upload, part, bytes, o)),
    completeUpload: (upload, parts, o) => again(o, () => client.completeUpload(upload, parts, o)),
    abortUpload: (upload, o) => again(o, () => client.abortUpload(upload, o)),
    listUploads: (o) => again(o, () => client.listUploads(o)),
  };
}

/** A call, since the compiler takes a flag that was false for false for ever. */
function isOver(signal: AbortSignal): boolean {
  return signal.aborted;
}

function isPassing(error: unknown): error is FastFreezeError {
  return error instanceof FastFreezeError && error.passing;
}

function givenUp(error: FastFreezeError, tries: number, deadlineMs: number): FastFreezeError {
  return new FastFreezeError({
    code: error.code,
    op: error.op,
    ...(error.subject === undefined ? {} : { subject: error.subject }),
    reason: `${error.reason} (${tries} tries in ${Math.round(deadlineMs / 1000)} s)`,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    cause: error,
  });
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(over, ms);
    signal.addEventListener('abort', over, { once: true });
    function over(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', over);
      resolve();
    }
  });
}
