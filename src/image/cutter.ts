// SPDX-License-Identifier: Apache-2.0
import { MAX_CHUNK_BYTES } from './layout.js';

export const PAGE_BYTES = 4096;
const MIN_CHUNK_BYTES = 64 * 1024;
const PAGE_WORDS = PAGE_BYTES / 4;
const CUT_MASK = 0x1ff;

/**
 * Where to cut a stream of memory pages into chunks. CRIU's page files are dense: a page that appears or goes shifts
 * all that follow, and the page map that would say which address a page has arrives later than the page. So the pages'
 * own content decides: one page in 512 ends a chunk. Memory that did not change is then cut at the same places again,
 * wherever it stands in the file. The format does not depend on any of this.
 */
export class Cutter {
  private scanned = 0;
  private previous = 0;

  /** The length of the chunk that starts at word 0, or undefined when more bytes are needed to tell. */
  cut(words: Uint32Array, filled: number): number | undefined {
    while (this.scanned + PAGE_BYTES <= filled) {
      const mark = sample(words, (this.scanned / PAGE_BYTES) * PAGE_WORDS);
      this.scanned += PAGE_BYTES;
      // A run of equal pages (zeroes, mostly) must not become a run of tiny chunks: only a change may cut.
      const changed = mark !== this.previous;
      this.previous = mark;
      if (this.scanned >= MIN_CHUNK_BYTES && changed && (mark & CUT_MASK) === 0) return this.restart();
      if (this.scanned === MAX_CHUNK_BYTES) return this.restart();
    }
    return undefined;
  }

  /** Begin a new chunk; the last page seen still counts as the one before. Returns what had been scanned. */
  restart(): number {
    const length = this.scanned;
    this.scanned = 0;
    return length;
  }
}

/** A few words of a page, mixed. Cheap enough to take of every page, and it need not notice every change. */
function sample(words: Uint32Array, at: number): number {
  let mark = Math.imul((words[at + 3] ?? 0) ^ 0x9e3779b9, 0x85ebca6b);
  mark = Math.imul((mark ^ (mark >>> 15)) + (words[at + 270] ?? 0), 0xc2b2ae35);
  mark = Math.imul((mark ^ (mark >>> 13)) + (words[at + 541] ?? 0), 0x27d4eb2f);
  mark = Math.imul((mark ^ (mark >>> 16)) + (words[at + 812] ?? 0), 0x165667b1);
  return mark ^ (mark >>> 15);
}
