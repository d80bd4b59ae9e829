// SPDX-License-Identifier: Apache-2.0

/** Some bytes of a file, verified. `release` them once they are used: the memory is then another's. */
export interface Piece {
  readonly bytes: Uint8Array;
  release(): void;
}

/** Largest piece that is copied out of the cache. */
export const SLICE_BYTES = 64 * 1024;

/** Slices of less are not worth keeping: Node has a pool of its own for them. */
const WORTH_KEEPING_BYTES = 4096;
const KEPT = 32;

/** Memory for pieces that are copies. It is not part of the budget of blocks, so it never has to be waited for. */
export class SliceList {
  private readonly idle: Buffer[] = [];

  take(length: number): Piece {
    if (length <= WORTH_KEEPING_BYTES) return { bytes: Buffer.allocUnsafe(length), release: () => undefined };
    const memory = this.idle.pop() ?? Buffer.allocUnsafeSlow(SLICE_BYTES);
    const release = once(() => {
      if (this.idle.length < KEPT) this.idle.push(memory);
    });
    return { bytes: memory.subarray(0, length), release };
  }
}

/** Memory released twice would be lent to two files at once. */
export function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    action();
  };
}
