// SPDX-License-Identifier: Apache-2.0
import { readdirSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { FastFreezeError } from '../../../src/base/errors.js';
import { createBlockPool } from '../../../src/image/blocks.js';
import { commitManifest, readManifest } from '../../../src/image/generations.js';
import { createImageWriter } from '../../../src/image/writer.js';
import { faultyStore, feed, makeStore, manifestOf, noise, readImage, writeImage } from './support.js';

const files = new Map([
  ['pages-1.img', noise(9_000_000, 1)],
  ['core-1.img', noise(300, 2)],
]);

describe('a store that fails', () => {
  test('at any write ends the image with its error, leaves nothing and keeps the one before', async () => {
    const store = makeStore();
    const good = await writeImage(store, new Map([['core-1.img', Buffer.from('good')]]));
    await commitManifest(store, good.manifest);
    const before = readdirSync(store.directory).sort();

    for (let failAt = 1; ; failAt++) {
      const faulty = faultyStore(store, failAt);
      const blocks = createBlockPool({ fileBlocks: 3, storedBlocks: 2 });
      const image = await createImageWriter({
        store: faulty,
        prefix: `p${failAt}`,
        numShards: 2,
        codec: 'lz4',
        blocks,
      });
      const error = await (async () => {
        for (const [name, bytes] of files) await feed(image, name, bytes, 200_000);
        return manifestOf(await image.finish(), 2);
      })().catch((reason: unknown) => reason);
      if (!(error instanceof Error)) {
        expect(failAt).toBeGreaterThan(10);
        await image.abort();
        expect(await store.size(`p${failAt}.ffi`)).toBeGreaterThan(0);
        return;
      }
      expect(error).toBeInstanceOf(FastFreezeError);
      expect(error.message).toContain('ENOSPC');
      expect(image.error).toBe(error);
      expect(image.failed.aborted).toBe(true);
      expect(image.failed.reason).toBe(error);
      await image.room();
      expect(() => image.file('late.img').reserve()).toThrow('ENOSPC');

      await image.abort();
      await image.abort();
      expect(readdirSync(store.directory).sort()).toEqual(before);
      expect(blocks.file.free).toBe(3);
      expect(blocks.stored.free).toBe(2);
      const found = await readImage(store, await readManifest(store, 'newest'));
      expect(found.get('core-1.img')?.toString()).toBe('good');
    }
  }, 60_000);

  test('an abort half way leaves nothing, and nothing more can be written', async () => {
    const store = makeStore();
    const blocks = createBlockPool();
    const image = await createImageWriter({ store, prefix: 'p', numShards: 4, codec: 'zstd', blocks });
    await feed(image, 'pages-1.img', noise(5_000_000, 1));
    const file = image.file('pages-2.img');
    const region = file.reserve();
    file.commit(region?.length ?? 0);
    await image.abort();
    expect(readdirSync(store.directory)).toEqual([]);
    expect(blocks.file.free).toBe(8);
    expect(blocks.stored.free).toBe(6);
    expect(() => file.reserve()).toThrow('asked to stop');
    await expect(image.finish()).rejects.toThrow('asked to stop');
  });
});
