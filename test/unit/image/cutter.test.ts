// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { Cutter, PAGE_BYTES } from '../../../src/image/cutter.js';
import { MAX_CHUNK_BYTES } from '../../../src/image/layout.js';
import { noise } from './support.js';

/** Lengths of all chunks but the last, which the end of the file makes. */
function cutAll(bytes: Buffer, step = MAX_CHUNK_BYTES): number[] {
  const cutter = new Cutter();
  const lengths: number[] = [];
  for (let start = 0, filled = 0; start + filled < bytes.length;) {
    filled = Math.min(filled + step, MAX_CHUNK_BYTES, bytes.length - start);
    const chunk = Buffer.from(bytes.subarray(start, start + filled));
    const words = new Uint32Array(chunk.buffer.slice(chunk.byteOffset, chunk.byteOffset + (filled & ~3)));
    const length = cutter.cut(words, filled);
    if (length === undefined) continue;
    lengths.push(length);
    start += length;
    filled -= length;
  }
  return lengths;
}

describe('cutting', () => {
  const memory = noise(40 << 20, 1);

  test('keeps to whole pages, from 64 KiB to 1 MiB', () => {
    const lengths = cutAll(memory);
    expect(lengths.length).toBeGreaterThan(40);
    for (const length of lengths) {
      expect(length % PAGE_BYTES).toBe(0);
      expect(length).toBeGreaterThanOrEqual(64 << 10);
      expect(length).toBeLessThanOrEqual(MAX_CHUNK_BYTES);
    }
    expect(new Set(lengths).size).toBeGreaterThan(5);
  });

  test('does not depend on how the bytes arrive', () => {
    expect(cutAll(memory, 10_000)).toEqual(cutAll(memory));
    expect(cutAll(memory, 4096)).toEqual(cutAll(memory));
  });

  test('finds its places again after a shift', () => {
    const ends = (lengths: number[]): Set<number> => {
      let at = 0;
      return new Set(lengths.map((length) => (at += length)));
    };
    const shift = 7 * PAGE_BYTES;
    const before = ends(cutAll(memory));
    const after = ends(cutAll(Buffer.concat([noise(shift, 2), memory])));
    const again = [...before].filter((end) => after.has(end + shift));
    expect(again.length).toBeGreaterThan(0.6 * before.size);
  });

  test('cuts a run of equal pages only at the longest', () => {
    for (const byte of [0, 1, 0x5a, 0xff]) {
      expect(cutAll(Buffer.alloc(5 << 20, byte)).slice(1)).toEqual(Array<number>(4).fill(MAX_CHUNK_BYTES));
    }
  });
});
