// SPDX-License-Identifier: Apache-2.0

/** A file up to this size lives in a region of its own while it is written, then shares a chunk with others. */
export const SMALL_FILE_BYTES = 64 * 1024;

const SIZES = [4 * 1024, 16 * 1024, SMALL_FILE_BYTES] as const;
/** Regions of each size that are kept for the next file. CRIU has hundreds of small files, few open at a time. */
const KEPT = 32;

/** Buffers for small files: they start small and grow, since most of CRIU's files have a few hundred bytes. */
export class SmallRegions {
  private readonly idle = new Map<number, Buffer[]>();

  first(): Buffer {
    return this.take(SIZES[0]);
  }

  /** A larger region with the first `filled` bytes of `region`, which is given back; undefined beyond the largest. */
  grown(region: Buffer, filled: number): Buffer | undefined {
    const size = SIZES.find((candidate) => candidate > region.length);
    if (size === undefined) return undefined;
    const larger = this.take(size);
    region.copy(larger, 0, 0, filled);
    this.give(region);
    return larger;
  }

  give(region: Buffer): void {
    const kept = this.idle.get(region.length) ?? [];
    if (kept.length < KEPT) kept.push(region);
    this.idle.set(region.length, kept);
  }

  private take(size: number): Buffer {
    return this.idle.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size);
  }
}
