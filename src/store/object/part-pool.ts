// SPDX-License-Identifier: Apache-2.0

/** Large enough that an upload's overhead does not count, small enough that a few fit the memory budget. */
export const PART_BYTES = 8 << 20;

/**
 * Memory for parts, shared by all writers of a store. There is one buffer for each open writer, and a common few for the
 * parts on their way. Whoever waits for one holds none that is not on its way, so somebody's part always arrives next,
 * and nobody waits for ever.
 */
export interface PartPool {
  /** A writer begins: it has a buffer of its own at once. */
  enter(): Buffer;
  /** Another buffer, when there is one. Rejects with the signal's reason when that comes first. */
  next(signal: AbortSignal): Promise<Buffer>;
  /** Nobody uses these bytes any more. */
  give(buffer: Buffer): void;
  /** A writer ends. What it held it gives back by itself. */
  leave(): void;
}

/** Parts on their way, of all writers together. */
const PARTS_UNDER_WAY = 2;

export function createPartPool(partBytes = PART_BYTES): PartPool {
  const idle: Buffer[] = [];
  const waiters: ((buffer: Buffer) => void)[] = [];
  let made = 0;
  let allowed = PARTS_UNDER_WAY;

  const make = (): Buffer => {
    made++;
    return Buffer.allocUnsafeSlow(partBytes);
  };
  const take = (): Buffer | undefined => idle.pop() ?? (made < allowed ? make() : undefined);
  const shrink = (): void => {
    while (made > allowed && idle.pop() !== undefined) made--;
  };

  return {
    enter() {
      allowed++;
      // Where those who left took the count down, one too many may be out for a moment.
      return take() ?? make();
    },
    next(signal) {
      if (signal.aborted) return Promise.reject(signal.reason as Error);
      const buffer = take();
      if (buffer !== undefined) return Promise.resolve(buffer);
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
    give(buffer) {
      if (made > allowed) made--;
      else {
        const waiter = waiters.shift();
        if (waiter !== undefined) waiter(buffer);
        else idle.push(buffer);
      }
    },
    leave() {
      allowed--;
      shrink();
    },
  };
}
