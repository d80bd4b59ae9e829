// SPDX-License-Identifier: Apache-2.0

export interface PartPoolOptions {
  /** Of a part: large enough that a request's overhead does not count. A multiple of `segmentBytes`. */
  readonly partBytes?: number;
  /** Memory comes in pieces of this size, so that a part that has just begun holds little. */
  readonly segmentBytes?: number;
  readonly budgetBytes?: number;
}

/**
 * Memory for the parts of uploads, shared by all writers. A writer takes it as its part grows, and a part on its way gives
 * it back when it has arrived. Whoever needs more than the budget has waits for a part that is on its way. When none is,
 * nobody would ever give anything back: then, and only then, more is made, so that nobody waits for ever. That is at most
 * a part for each writer.
 */
export interface PartPool {
  readonly partBytes: number;
  readonly segmentBytes: number;
  /** A piece of memory, when there is one. Rejects with the signal's reason when that comes first. */
  take(signal: AbortSignal): Promise<Buffer>;
  /** Nobody uses these any more. */
  give(segments: readonly Buffer[]): void;
  /** Do something with them that will end, and give them back then. */
  carry<T>(segments: readonly Buffer[], work: () => Promise<T>): Promise<T>;
}

/** Of the pool that all uploads of this process share. */
export const PART_BYTES = 8 << 20;
const SEGMENT_BYTES = 256 << 10;
/** One part is being filled at a time, as a rule: between two and three are on their way. */
const BUDGET_BYTES = 28 << 20;

let shared: PartPool | undefined;

/** Loaded by the first upload: whoever only reads needs no native library. */
let forgetPages: ((bytes: Uint8Array) => void) | undefined;

/** The one of this process: the memory of all its uploads, however many stores are open. */
export function sharedPartPool(): PartPool {
  return (shared ??= createPartPool());
}

export function createPartPool(options: PartPoolOptions = {}): PartPool {
  const { partBytes = PART_BYTES, segmentBytes = SEGMENT_BYTES, budgetBytes = BUDGET_BYTES } = options;
  const idle: Buffer[] = [];
  const waiters: ((segment: Buffer) => void)[] = [];
  let made = 0;
  let carried = 0;

  const make = (): Buffer => {
    if (made++ === 0)
      void import('../../linux/memory.js').then(
        (memory) => (forgetPages = memory.forgetPages),
        // Then it is kept.
        () => undefined,
      );
    return Buffer.allocUnsafeSlow(segmentBytes);
  };

  const serve = (): void => {
    while (waiters.length > 0) {
      const segment = idle.pop() ?? (carried === 0 ? make() : undefined);
      if (segment === undefined) return;
      waiters.shift()?.(segment);
    }
  };

  const give = (segments: readonly Buffer[]): void => {
    for (const segment of segments) {
      if (made * segmentBytes > budgetBytes && waiters.length === 0) made--;
      else idle.push(segment);
    }
    serve();
    // Nobody uploads any more: until the next checkpoint the memory is the machine's.
    if (idle.length === made) for (const segment of idle) forgetPages?.(segment);
  };

  return {
    partBytes,
    segmentBytes,
    take(signal) {
      if (signal.aborted) return Promise.reject(signal.reason as Error);
      if (waiters.length === 0) {
        const segment = idle.pop() ?? (carried === 0 || (made + 1) * segmentBytes <= budgetBytes ? make() : undefined);
        if (segment !== undefined) return Promise.resolve(segment);
      }
      return new Promise((resolve, reject) => {
        const waiter = (given: Buffer): void => {
          signal.removeEventListener('abort', onAbort);
          resolve(given);
        };
        const onAbort = (): void => {
          waiters.splice(waiters.indexOf(waiter), 1);
          reject(signal.reason as Error);
        };
        signal.addEventListener('abort', onAbort, { once: true });
        waiters.push(waiter);
      });
    },
    give,
    async carry(segments, work) {
      carried++;
      try {
        return await work();
      } finally {
        carried--;
        give(segments);
      }
    },
  };
}
