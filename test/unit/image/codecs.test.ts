// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { describe, expect, test } from '@jest/globals';
import koffi from 'koffi';
import { type HashWords, loadHasher, loadLibrary, loadZstd } from '../../../src/linux/codecs.js';
import { loadLz4Block, loadLz4Frame } from '../../../src/linux/lz4.js';
import { noise } from './support.js';

const text = Buffer.from('all work and no play '.repeat(2000));

describe.each([
  ['lz4 block', loadLz4Block],
  ['lz4 frame', loadLz4Frame],
  ['zstd', loadZstd],
] as const)('%s', (_, load) => {
  const into = Buffer.alloc(1 << 17);
  const back = Buffer.alloc(text.length);

  test('compresses and decompresses, many at once', async () => {
    await Promise.all(
      Array.from({ length: 20 }, async (_unused, i) => {
        const source = Buffer.concat([noise(100 * i, i + 1), text]);
        const [compressed, restored] = [Buffer.alloc(1 << 17), Buffer.alloc(source.length)];
        const stored = await load().compress(source, source.length, compressed, compressed.length);
        expect(stored).toBeGreaterThan(0);
        expect(stored).toBeLessThan(source.length);
        expect(await load().decompress(compressed, stored, restored, restored.length)).toBe(source.length);
        expect(restored.equals(source)).toBe(true);
      }),
    );
  });

  test('says when the result does not fit', async () => {
    const random = noise(10_000, 1);
    expect(await load().compress(random, random.length, into, 9_700)).toBe(0);
    expect(await load().compress(text, text.length, into, 3)).toBe(0);
  });

  test('refuses what would overrun the destination, and what is no stream', async () => {
    const stored = await load().compress(text, text.length, into, into.length);
    const guard = Buffer.alloc(text.length, 0xee);
    expect(await load().decompress(into, stored, guard, 1000)).toBeLessThan(0);
    expect(guard.subarray(1000).every((byte) => byte === 0xee)).toBe(true);
    expect(await load().decompress(noise(500, 3), 500, back, 100)).toBeLessThan(0);
    expect(await load().decompress(into, stored - 1, back, back.length)).not.toBe(text.length);
  });
});

describe('xxh3', () => {
  test('is the reference function, low word first', async () => {
    // XXH3_128bits of nothing, seed 0: 99aa06d3014798d8 6001c324468d497f.
    const hash = await loadHasher().hash(Buffer.alloc(8), 0, 0n);
    const hex = [hash.d, hash.c, hash.b, hash.a].map((word) => word.toString(16).padStart(8, '0')).join('');
    expect(hex).toBe('99aa06d3014798d86001c324468d497f');
  });

  test('depends on every byte, the length and the seed', async () => {
    const bytes = noise(5000, 1);
    const { hash, hashNow } = loadHasher();
    const base = await hash(bytes, 5000, 1n);
    expect(await hash(Buffer.from(bytes), 5000, 1n)).toEqual(base);
    expect(await hash(bytes, 4999, 1n)).not.toEqual(base);
    expect(await hash(bytes, 5000, 0xffffffffffffffffn)).not.toEqual(base);
    bytes[4321] = (bytes[4321] ?? 0) ^ 1;
    expect(await hash(bytes, 5000, 1n)).not.toEqual(base);
    expect(hashNow(bytes, 5000, 1n)).toEqual(await hash(bytes, 5000, 1n));
  });

  test('is the same whatever the CPU can do', () => {
    const words = koffi.struct({ a: 'uint32', b: 'uint32', c: 'uint32', d: 'uint32' });
    const plain = loadLibrary('libxxhash.so.0').func('XXH3_128bits_withSeed', words, [
      'const void *',
      'size_t',
      'uint64',
    ]) as (bytes: Uint8Array, length: number, seed: bigint) => HashWords;
    for (const length of [0, 1, 16, 17, 128, 129, 240, 241, 1024, 1 << 20]) {
      const bytes = noise(length, length);
      expect(loadHasher().hashNow(bytes, length, 7n)).toEqual(plain(bytes, length, 7n));
    }
  });
});

describe('native libraries', () => {
  test('that cannot be found are the host’s fault, with a remedy', () => {
    const load = (): unknown => loadLibrary('libnothing.so.9', ['/nowhere/libnothing.so.9', 'libnothing.so.9']);
    expect(load).toThrow(
      expect.objectContaining({ code: 'host', subject: 'libnothing.so.9', hint: 'run `fastfreeze install --force`' }),
    );
  });

  test('are taken from the first place that has one', () => {
    expect(loadLibrary('liblz4.so.1', ['/nowhere/liblz4.so.1', 'liblz4.so.1'])).toBeDefined();
  });

  test('are not loaded by what only reads manifests', () => {
    const modules = ['image/manifest.js', 'image/generations.js', 'image/prune.js', 'store/store.js'];
    const urls = modules.map((path) => new URL(`../../../src/${path}`, import.meta.url).href);
    const script = `
      for (const url of ${JSON.stringify(urls)}) await import(url);
      const { readFileSync } = await import('node:fs');
      process.stdout.write(readFileSync('/proc/self/maps', 'utf8'));`;
    const maps = execFileSync(process.execPath, ['--input-type=module', '-e', script], { env: {} }).toString();
    expect(maps).not.toMatch(/koffi|liblz4|libzstd|libxxhash/);
    expect(maps).toContain('libc.so.6');
  });
});
