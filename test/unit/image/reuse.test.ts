// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { commitManifest, readManifest } from '../../../src/image/generations.js';
import { readIndex } from '../../../src/image/reader.js';
import { expectCode } from '../store/conformance.js';
import { makeStore, manifestOf, noise, readImage, writeImage } from './support.js';

const PAGE = 4096;

describe('reuse of chunks', () => {
  test('memory that moved in the page file is stored once', async () => {
    const store = makeStore();
    const memory = noise(30_000 * 1024, 1);
    const first = await writeImage(store, new Map([['pages-1.img', memory]]), { codec: 'lz4' });
    await commitManifest(store, first.manifest);

    // Pages came and went: one in front, a few changed, some gone from the middle.
    const changed = Buffer.concat([
      noise(3 * PAGE, 2),
      memory.subarray(0, 8_000 * 1024),
      noise(PAGE, 3),
      memory.subarray(8_000 * 1024 + PAGE, 20_000 * 1024),
      memory.subarray(20_000 * 1024 + 5 * PAGE),
    ]);
    const previous = { index: await readIndex(store, first.sealed), generation: 1 };
    const second = await writeImage(store, new Map([['pages-1.img', changed]]), {
      codec: 'zstd',
      previous,
      generation: 2,
    });
    expect(second.sealed.baseGeneration).toBe(1);
    expect(second.sealed.storedBytes).toBeLessThan(0.5 * first.sealed.storedBytes);
    await commitManifest(store, second.manifest);
    const found = await readImage(store, await readManifest(store, 'newest'));
    expect(found.get('pages-1.img')?.equals(changed)).toBe(true);
  });

  test('equal memory is stored not at all, and a third image borrows through the second', async () => {
    const store = makeStore();
    const files = new Map([['pages-1.img', noise(5_000_000, 1)]]);
    let written = await writeImage(store, files);
    for (let generation = 2; generation <= 4; generation++) {
      const previous = { index: await readIndex(store, written.sealed), generation: generation - 1 };
      written = await writeImage(store, files, { previous, generation });
      expect(written.stats.storedBytes).toBe(0);
      expect(written.sealed.shards.length).toBeGreaterThan(0);
      const found = await readImage(store, written.manifest);
      expect(found.get('pages-1.img')?.equals(files.get('pages-1.img') ?? Buffer.alloc(0))).toBe(true);
    }
  });

  test('equal memory of several processes is stored once within an image', async () => {
    const store = makeStore();
    const memory = noise(10_000 * 1024, 1);
    const files = new Map(
      Array.from({ length: 5 }, (_, i) => [`pages-${i}.img`, Buffer.concat([noise(PAGE, 9 + i), memory])]),
    );
    const { sealed, manifest, stats } = await writeImage(store, files, { codec: 'none' });
    expect(sealed.storedBytes).toBeLessThan(2.5 * memory.length);
    expect(stats.reusedChunks).toBeGreaterThan(15);
    const found = await readImage(store, manifest);
    for (const [name, bytes] of files) expect(found.get(name)?.equals(bytes)).toBe(true);
  });

  test('runs of equal pages become few chunks, stored once', async () => {
    const store = makeStore();
    const { sealed, manifest } = await writeImage(store, new Map([['pages-1.img', Buffer.alloc(50 << 20)]]));
    expect(sealed.chunks).toBeLessThanOrEqual(2);
    expect(sealed.storedBytes).toBeLessThan(10_000);
    expect((await readImage(store, manifest)).get('pages-1.img')?.equals(Buffer.alloc(50 << 20))).toBe(true);
  });

  test('a manifest cannot borrow from any generation but the one before', async () => {
    const store = makeStore();
    const files = new Map([['pages-1.img', noise(1_000_000, 1)]]);
    const first = await writeImage(store, files);
    const previous = { index: await readIndex(store, first.sealed), generation: 1 };
    const second = await writeImage(store, files, { previous, generation: 2 });
    expect(() => manifestOf(second.sealed, 3)).toThrow(/baseGeneration/);
  });

  test('a borrowed shard that is gone is missed before anything is read', async () => {
    const store = makeStore();
    const files = new Map([['pages-1.img', noise(1_000_000, 1)]]);
    const first = await writeImage(store, files, { numShards: 1 });
    const previous = { index: await readIndex(store, first.sealed), generation: 1 };
    const second = await writeImage(store, files, { previous, generation: 2 });
    const name = first.sealed.shards[0]?.name ?? '';
    await store.remove(name);
    await expectCode('image', readImage(store, second.manifest), name);
  });
});
