// SPDX-License-Identifier: Apache-2.0

/** Large enough that an upload's overhead does not count, small enough that a few fit the memory budget. */
export const PART_BYTES = 8 << 20;

/**
 * Memory for parts, shared by all writers of a store. Each open writer has one buffer of its own that it fills, so that
 * none waits for another's; the ones that are on their way come out of a common few.
 */
export interface PartPool {
  enter(): Buffer;
  /** A buffer in exchange for one that is given back later. */
  next(): Promise<Buffer>;
  /** Bytes of this one are on nobody's way any more. */
  give(buffer: Buffer): void;
  /** The writer has ended; its own buffer is given back with it. */
  leave(buffer: Buffer): void;
}

/** Parts on their way, of all writers together. */
const PARTS_UNDER_WAY = 2;

export function createPartPool(): PartPool {
  const idle: Buffer[] = [];
  const waiters: ((buffer: Buffer) => void)[] = [];
  let made = 0;
  let allowed = PARTS_UNDER_WAY;

  const take = (): Buffer | undefined => {
    const buffer = idle.pop();
    if (buffer !== undefined) return buffer;
    if (made >= allowed) return undefined;
    made++;
    return Buffer.allocUnsafeSlow(PART_BYTES);
  };
  const put = (buffer: Buffer): void => {
    const waiter = waiters.shift();
    if (waiter !== undefined) waiter(buffer);
    else if (made > allowed) made--;
    else idle.push(buffer);
  };

  return {
    enter() {
      allowed++;
      const buffer = take();
      if (buffer !== undefined) return buffer;
      // Somebody else has taken what would be ours; it comes back when his part has arrived.
      made++;
      return Buffer.allocUnsafeSlow(PART_BYTES);
    },
    next() {
      const buffer = take();
      return buffer === undefined ? new Promise((resolve) => waiters.push(resolve)) : Promise.resolve(buffer);
    },
    give: put,
    leave(buffer) {
      allowed--;
      put(buffer);
    },
  };
}
