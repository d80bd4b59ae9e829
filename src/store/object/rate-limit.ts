// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import type { CallOptions, ObjectClient } from './object-client.js';
import { sizeOf } from '../pieces.js';

export interface RateLimitOptions {
  /** Of both directions together, repeated requests too; undefined for none. */
  readonly bytesPerSecond?: number;
  /** For tests: milliseconds of a clock that never goes back. */
  readonly nowMs?: () => number;
  /** For tests: resolves early when the signal comes. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };
/** Slower than this, the parts of a few shards would take minutes, and the checkpoint be given up as one that hangs. */
const MIN_BYTES_PER_SECOND = 2 ** 20;

/** `FF_STORE_RATE_LIMIT`: bytes per second with K, M or G. Throws `usage`. */
export function readRateLimit(env: NodeJS.ProcessEnv): RateLimitOptions {
  const text = env['FF_STORE_RATE_LIMIT'] ?? '';
  if (text === '') return {};
  const [, digits = '', unit = ''] = /^(\d{1,12})([KMG]?)$/u.exec(text) ?? [];
  const bytesPerSecond = Number(digits) * (UNITS[unit] ?? 1);
  if (digits !== '' && bytesPerSecond >= MIN_BYTES_PER_SECOND) return { bytesPerSecond };
  throw new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: `FF_STORE_RATE_LIMIT=${text}`,
    reason: 'it is not a number of bytes per second that it can have',
    hint: 'give 1M or more, such as 50M or 1G',
  });
}

/**
 * A client that sends and fetches no more bytes per second than it may, on average: each request waits until those before
 * it have been paid for. Within a request nothing is slowed down, so a burst is as long as a part or a chunk.
 */
export function withRateLimit(client: ObjectClient, options: RateLimitOptions): ObjectClient {
  const { bytesPerSecond, nowMs = () => performance.now(), sleep = sleepUnless } = options;
  if (bytesPerSecond === undefined) return client;
  let freeAtMs = nowMs();

  const afterOthers = async <T>(bytes: number, { signal }: CallOptions, action: () => Promise<T>): Promise<T> => {
    // Time that was not used is not saved up.
    const startMs = Math.max(freeAtMs, nowMs());
    freeAtMs = startMs + (bytes / bytesPerSecond) * 1000;
    for (let waitMs = startMs - nowMs(); waitMs > 0 && !signal.aborted; waitMs = startMs - nowMs()) {
      // A timer's end may come a little early by the other clock.
      await sleep(Math.ceil(waitMs), signal);
    }
    return await action();
  };

  return {
    url: client.url,
    maxParallelParts: client.maxParallelParts,
    put: (name, bytes, o) => afterOthers(bytes.length, o, () => client.put(name, bytes, o)),
    get: (name, offset, into, o) => afterOthers(into.length, o, () => client.get(name, offset, into, o)),
    async open(name, offset, length, o) {
      const body = await client.open(name, offset, length, o);
      return {
        read: (into) => afterOthers(into.length, o, () => body.read(into)),
        close: () => body.close(),
      };
    },
    getVersion: (name, o) => client.getVersion(name, o),
    head: (name, o) => client.head(name, o),
    list: (prefix, o) => client.list(prefix, o),
    remove: (name, o) => client.remove(name, o),
    beginUpload: (name, o) => client.beginUpload(name, o),
    putPart: (upload, part, bytes, o) => afterOthers(sizeOf(bytes), o, () => client.putPart(upload, part, bytes, o)),
    completeUpload: (upload, parts, o) => client.completeUpload(upload, parts, o),
    abortUpload: (upload, o) => client.abortUpload(upload, o),
    listKeys: (page, o) => client.listKeys(page, o),
    listUploads: (o) => client.listUploads(o),
  };
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
