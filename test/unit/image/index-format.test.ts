// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FastFreezeError } from '../../../src/base/errors.js';
import { ChunkTable } from '../../../src/image/chunk-table.js';
import { type ImageIndex, decodeIndex, encodeIndex } from '../../../src/image/index-format.js';

function sample(): ImageIndex {
  const chunks = new ChunkTable();
  for (let i = 0; i < 5; i++) {
    const chunk = chunks.add({ a: i, b: 2 ** 32 - 1, c: 0, d: 7 }, 1000 + i);
    chunks.setStored(chunk, {
      codec: i % 2 === 0 ? 'none' : 'zstd',
      cipher: 'none',
      storedBytes: i % 2 === 0 ? 1000 + i : 10,
    });
    chunks.setPlace(chunk, { shard: i % 2, offset: i * 2000 });
  }
  return {
    hashSeed: 0xfedcba9876543210n,
    shards: [
      { prefix: 'one', number: 1, sizeBytes: 100_000 },
      { prefix: 'two-2', number: 12, sizeBytes: 2 ** 40 },
    ],
    chunks,
    files: new Map([
      ['pages-1.img', { sizeBytes: 2001, firstExtent: 0, extentCount: 2 }],
      ['empty', { sizeBytes: 0, firstExtent: 2, extentCount: 0 }],
      ['ä/€ 𝄞', { sizeBytes: 3, firstExtent: 2, extentCount: 1 }],
    ]),
    extents: Uint32Array.of(0, 0, 1000, 1, 0, 1001, 4, 1001, 3),
  };
}

/** Bytes with a checksum that fits: what a buggy or hostile writer could make. */
function seal(bytes: Buffer): Buffer {
  const body = bytes.subarray(0, -32);
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
}

function refusal(bytes: Buffer): string {
  try {
    decodeIndex(bytes, 'x.ffi');
  } catch (error) {
    if (error instanceof FastFreezeError && error.code === 'image') return error.message;
    throw error;
  }
  return '';
}

describe('the index', () => {
  test('comes back as it was', () => {
    const index = sample();
    const found = decodeIndex(encodeIndex(index), 'x.ffi');
    expect(found.hashSeed).toBe(index.hashSeed);
    expect(found.shards).toEqual(index.shards);
    expect([...found.files]).toEqual([...index.files]);
    expect(found.extents).toEqual(index.extents);
    expect(found.chunks.length).toBe(5);
    for (let i = 0; i < 5; i++) {
      expect(found.chunks.facts(i)).toEqual(index.chunks.facts(i));
      expect(found.chunks.place(i)).toEqual(index.chunks.place(i));
      expect(found.chunks.find(index.chunks.facts(i).hash, 1000 + i)).toBe(i);
      expect(found.chunks.find(index.chunks.facts(i).hash, 999)).toBeUndefined();
    }
  });

  test('an empty one is possible', () => {
    const empty = { hashSeed: 0n, shards: [], chunks: new ChunkTable(), files: new Map<string, never>() };
    const found = decodeIndex(encodeIndex({ ...empty, extents: new Uint32Array(0) }), 'x.ffi');
    expect(found.files.size).toBe(0);
    expect(found.chunks.find({ a: 1, b: 2, c: 3, d: 4 }, 5)).toBeUndefined();
  });

  test('any bytes are an index or an image error', () => {
    const good = encodeIndex(sample());
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(refusal(Buffer.from(bytes))).toContain('x.ffi');
        expect(refusal(seal(Buffer.concat([good.subarray(0, 64), bytes, Buffer.alloc(32)])))).not.toBe('');
      }),
    );
  });

  test('any numbers in it with a checksum that fits never crash a reader', () => {
    const good = encodeIndex(sample());
    const value = fc.oneof(
      fc.constantFrom(0, 1, 2 ** 31, 2 ** 32 - 1),
      fc.nat(5000),
      fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 8, max: good.length - 36 }), value, (at, number) => {
        const changed = Buffer.from(good);
        changed.writeUInt32LE(number, at);
        refusal(seal(changed)); // throws when it is another kind of error
      }),
      { numRuns: 2000 },
    );
  });

  test.each<[string, (index: ImageIndex) => ImageIndex, string]>([
    [
      'a chunk that does not exist',
      (index) => ({ ...index, extents: Uint32Array.of(5, 0, 1000, 1, 0, 1001, 4, 1001, 3) }),
      'pages-1.img',
    ],
    [
      'a range outside of its chunk',
      (index) => ({ ...index, extents: Uint32Array.of(0, 1, 1000, 1, 0, 1001, 4, 1001, 3) }),
      'outside of its chunk',
    ],
    [
      'an empty extent',
      (index) => ({ ...index, extents: Uint32Array.of(0, 0, 1000, 1, 0, 1001, 4, 1001, 0) }),
      'outside of its chunk',
    ],
    [
      'extents left over',
      (index) => ({ ...index, extents: Uint32Array.of(...index.extents, 0, 0, 1) }),
      'belong to no file',
    ],
    [
      'a wrong size',
      (index) => ({
        ...index,
        files: new Map([...index.files, ['empty', { sizeBytes: 1, firstExtent: 2, extentCount: 0 }]]),
      }),
      'add up',
    ],
    [
      'a chunk outside of its shard',
      (index) => ({ ...index, shards: index.shards.map((s) => ({ ...s, sizeBytes: 100 })) }),
      'outside of its shard',
    ],
    ['a chunk in no shard', (index) => ({ ...index, shards: index.shards.slice(0, 1) }), 'outside of its shard'],
    ['a shard twice', (index) => ({ ...index, shards: [...index.shards, ...index.shards] }), 'twice'],
    [
      'a prefix that is a path',
      (index) => ({ ...index, shards: index.shards.map((s) => ({ ...s, prefix: '../x' })) }),
      'valid prefix',
    ],
    [
      'a shard without number',
      (index) => ({ ...index, shards: index.shards.map((s) => ({ ...s, number: 0 })) }),
      'valid number',
    ],
    ['a file without name', (index) => ({ ...index, files: renamed(index, '') }), 'valid name'],
    ['a name with NUL', (index) => ({ ...index, files: renamed(index, 'a\0b') }), 'valid name'],
  ])('refuses %s', (_, change, reason) => {
    expect(refusal(encodeIndex(change(sample())))).toContain(reason);
  });

  test('refuses lengths of chunks that would overrun a block', () => {
    for (const [at, number] of [
      [4, 0],
      [4, 2 ** 20 + 1],
      [16, 0],
      [16, 2 ** 20 + 1],
      [20, 4],
      [20, 0x0100],
    ] as const) {
      const bytes = encodeIndex(sample());
      bytes.writeUInt32LE(number, 64 + 2 * 16 + 40 + at);
      expect(refusal(seal(bytes))).toMatch(/chunk 1 /);
    }
  });

  test('a newer version is told from a damaged index', () => {
    const bytes = encodeIndex(sample());
    bytes.writeUInt32LE(2, 8);
    expect(refusal(bytes)).toContain('checksum');
    expect(refusal(seal(bytes))).toContain('format version 2');
  });
});

function renamed(index: ImageIndex, name: string): ImageIndex['files'] {
  return new Map([...index.files].map(([old, file], i) => [i === 1 ? name : old, file]));
}
