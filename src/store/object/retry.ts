// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import { numberVariable } from '../../base/number-variable.js';
import type { CallOptions, ObjectClient } from './object-client.js';

export interface RetryOptions {
  /** From the first try of a request to the last; unlimited tries within it. */
  readonly deadlineMs?: number;
  /** The longest wait between two tries. */
  readonly maxDelayMs?: number;
  /** Told, in one line, what is waited for and for how long: after a few seconds, and once for as long as it may take. */
  readonly onWait?: (message: string) => void;
  /** For tests: 0 to 1, as `Math.random`. */
  readonly random?: () => number;
  /** For tests: resolves early when the signal comes. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

const FIRST_DELAY_MS = 100;
/** A stumble is nobody's business; a wait that people notice is. */
const SILENT_MS = 3_000;
/** Less than the three minutes after which a checkpoint that does not move is given up. */
const DEFAULT_DEADLINE_MS = 120_000;

/** `FF_STORE_RETRY_S`: for how many seconds. Throws `usage`. */
export function readRetrySettings(env: NodeJS.ProcessEnv): RetryOptions {
  const seconds = numberVariable(env, 'FF_STORE_RETRY_S', 'seconds', MAX_RETRY_S);
  return seconds === undefined ? {} : { deadlineMs: seconds * 1000 };
}

const MAX_RETRY_S = 86_400;

/**
 * A client that tries a request again while its failure is a passing one: exponential delays with full jitter, so that
 * many jobs whose service has stumbled do not all come back at once.
 */
export function withRetries(client: ObjectClient, options: RetryOptions = {}): ObjectClient {
  const { deadlineMs = DEFAULT_DEADLINE_MS, maxDelayMs = 8_000, random = Math.random, sleep = sleepUnless } = options;
  let toldAtMs = -Infinity;

  /** Many requests fail at once, and for one reason. */
  const tell = (error: FastFreezeError, elapsedMs: number): void => {
    const nowMs = performance.now();
    if (elapsedMs < SILENT_MS || nowMs - toldAtMs < deadlineMs) return;
    toldAtMs = nowMs;
    const leftS = Math.ceil((deadlineMs - elapsedMs) / 1000);
    options.onWait?.(`${error.subject ?? client.url}: ${error.reason}; trying again for up to ${leftS} s`);
  };

  const again = async <T>({ signal }: CallOptions, attempt: () => Promise<T>): Promise<T> => {
    const startMs = performance.now();
    for (let tries = 1; ; tries++) {
      try {
        return await attempt();
      } catch (error) {
        if (!isPassing(error)) throw error;
        if (isOver(signal)) throw calledOff(error);
        const delayMs = random() * Math.min(maxDelayMs, FIRST_DELAY_MS * 2 ** tries);
        const elapsedMs = performance.now() - startMs;
        if (elapsedMs + delayMs > deadlineMs) throw givenUp(error, tries, elapsedMs);
        tell(error, elapsedMs + delayMs);
        await sleep(delayMs, signal);
        if (isOver(signal)) throw calledOff(error);
      }
    }
  };

  return {
    url: client.url,
    maxParallelParts: client.maxParallelParts,
    put: (name, bytes, o) => again(o, () => client.put(name, bytes, o)),
    getVersion: (name, o) => again(o, () => client.getVersion(name, o)),
    get: (name, offset, into, o) => again(o, () => client.get(name, offset, into, o)),
    // Whoever reads on from a failed one asks with `get`, and that is tried again.
    open: (name, offset, length, o) => client.open(name, offset, length, o),
    head: (name, o) => again(o, () => client.head(name, o)),
    list: (prefix, o) => again(o, () => client.list(prefix, o)),
    listKeys: (page, o) => again(o, () => client.listKeys(page, o)),
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

/** No longer a passing one: whoever asked must not ask again for the same reason. */
function givenUp(error: FastFreezeError, tries: number, elapsedMs: number): FastFreezeError {
  return new FastFreezeError({
    code: error.code,
    op: error.op,
    ...(error.subject === undefined ? {} : { subject: error.subject }),
    reason: `${error.reason} (${tries} ${tries === 1 ? 'try' : 'tries'} in ${Math.round(elapsedMs / 1000)} s)`,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    cause: error,
  });
}

function calledOff(error: FastFreezeError): FastFreezeError {
  const { op, subject, reason } = error;
  const where = subject === undefined ? {} : { subject };
  return new FastFreezeError({
    code: 'aborted',
    op,
    ...where,
    reason: `asked to stop (before: ${reason})`,
    cause: error,
  });
}

function sleepUnless(ms: number, signal: AbortSignal): Promise<void> {
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
