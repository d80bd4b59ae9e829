// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { createBlockPool } from '../../../src/image/blocks.js';
import { EXTENT_WORDS } from '../../../src/image/index-format.js';
import { CHUNK_HEADER_BYTES } from '../../../src/image/layout.js';
import type { Piece } from '../../../src/image/pieces.js';
import { openImage, readIndex } from '../../../src/image/reader.js';
import { createImageWriter } from '../../../src/image/writer.js';
import type { Store } from '../../../src/store/store.js';
import { expectCode } from '../store/conformance.js';
import { feed, makeStore, manifestOf, noise, readImage, writeImage } from './support.js';

describe('a writer short of memory', () => {
  test.each([1, 2, 3])(
    'takes many files that grow side by side, with %d blocks',
    async (fileBlocks) => {
      const store = makeStore();
      const blocks = createBlockPool({ fileBlocks, storedBlocks: 1 });
      const image = await createImageWriter({ store, prefix: 'p', numShards: 2, codec: 'lz4', blocks });
      const sources = Array.from({ length: 12 }, (_, i) => ({
        name: i % 3 === 0 ? `small-${i}.img` : `pages-${i}.img`,
        bytes: noise(100_000 * i + (i % 2) * 777, i + 1),
      }));
      const open = sources.map((source) => ({ ...source, file: image.file(source.name), at: 0 }));
      // CRIU writes one file at a time and waits for nobody: whichever is up next must get on.
      for (let turn = 0; open.some((one) => one.at < one.bytes.length); turn++) {
        const one = open[(turn * 7) % open.length];
        if (one === undefined || one.at === one.bytes.length) continue;
        let region = one.file.reserve();
        while (region === undefined) {
          await image.room();
          region = one.file.reserve();
        }
        const part = one.bytes.subarray(one.at, one.at + Math.min(region.length, 30_000 + turn));
        region.set(part);
        one.file.commit(part.length);
        one.at += part.length;
      }
      for (const { file } of open) file.end();
      const manifest = manifestOf(await image.finish());
      expect(blocks.file.free).toBe(fileBlocks);
      expect(blocks.stored.free).toBe(1);
      const found = await readImage(store, manifest);
      for (const { name, bytes } of sources) expect(found.get(name)?.equals(bytes)).toBe(true);
    },
    60_000,
  );

  test('packs hundreds of small files open at once', async () => {
    const store = makeStore();
    const blocks = createBlockPool({ fileBlocks: 2, storedBlocks: 1 });
    const image = await createImageWriter({ store, prefix: 'p', numShards: 1, codec: 'zstd', blocks });
    const open = Array.from({ length: 500 }, (_, i) => ({ name: `core-${i}.img`, bytes: noise(1 + i * 100, i) }));
    const writers = open.map(({ name }) => image.file(name));
    for (const [i, { bytes }] of open.entries()) {
      for (let at = 0; at < bytes.length;) {
        const region = writers[i]?.reserve();
        if (region === undefined) {
          await image.room();
          continue;
        }
        const part = bytes.subarray(at, at + region.length);
        region.set(part);
        writers[i]?.commit(part.length);
        at += part.length;
      }
    }
    for (const writer of writers) writer.end();
    const sealed = await image.finish();
    expect(sealed.chunks).toBeLessThan(30);
    const found = await readImage(store, manifestOf(sealed));
    for (const { name, bytes } of open) expect(found.get(name)?.equals(bytes)).toBe(true);
  });

  test('rolls over to further shards', async () => {
    const store = makeStore();
    const files = new Map([['pages-1.img', noise(6_000_000, 1)]]);
    const { sealed, manifest } = await writeImage(store, files, { codec: 'none', maxShardBytes: 2_500_000 });
    expect(sealed.shards.length).toBeGreaterThan(2);
    for (const shard of sealed.shards) expect(shard.sizeBytes).toBeLessThanOrEqual(2_500_000);
    expect((await readImage(store, manifest)).get('pages-1.img')?.equals(files.get('pages-1.img') ?? noise(1, 1))).toBe(
      true,
    );
  });

  test('gives a shard whose store is slow the less, and waits for it only at the end', async () => {
    const store = makeStore();
    const stored = [0, 0, 0];
    let others = (): void => undefined;
    const enough = new Promise<void>((resolve) => (others = resolve));
    let made = 0;
    const slow: Store = {
      ...store,
      createWriter: async (name) => {
        const writer = await store.createWriter(name);
        const shard = name.endsWith('.ffs') ? made++ : -1;
        const append: typeof writer.append = async (parts) => {
          if (shard === 0) await enough;
          await writer.append(parts);
          for (const { length } of shard < 0 ? [] : parts) stored[shard] = (stored[shard] ?? 0) + length;
          if ((stored[1] ?? 0) + (stored[2] ?? 0) > 24_000_000) others();
        };
        return { append, finish: () => writer.finish(), abort: () => writer.abort() };
      },
    };
    const files = new Map([['pages-1.img', noise(32_000_000, 1)]]);
    const { manifest } = await writeImage(slow, files, { codec: 'none', numShards: 3 });
    const [first = 0, second = 0, third = 0] = stored;
    expect(Math.min(second, third)).toBeGreaterThan(8_000_000);
    expect(first).toBeLessThan(10_000_000);
    expect(first).toBeGreaterThan(0);
    expect((await readImage(store, manifest)).get('pages-1.img')?.equals(files.get('pages-1.img') ?? noise(1, 1))).toBe(
      true,
    );
  }, 60_000);

  test('fills one part at a time where a store keeps parts in memory until they are full, and uses all shards', async () => {
    const store = makeStore();
    const partBytes = 4 << 20;
    const files = new Map([['pages-1.img', noise(40_000_000, 1)]]);
    const options = { codec: 'none', numShards: 4 } as const;
    const { manifest, sealed } = await writeImage({ ...store, partBytes }, files, options);
    const image = await openImage({ store, manifest });
    const { chunks } = image.index;
    const shards = Array.from({ length: chunks.length }, (_, chunk) => chunks.place(chunk).shard);
    const changes = shards.filter((shard, i) => i > 0 && shard !== shards[i - 1]).length;
    expect(changes).toBeLessThanOrEqual(40_000_000 / partBytes);
    expect(sealed.shards).toHaveLength(4);
    expect(Math.min(...sealed.shards.map(({ sizeBytes }) => sizeBytes))).toBeGreaterThan(partBytes);
    expect((await image.readAll('pages-1.img', 2 ** 30)).equals(files.get('pages-1.img') ?? noise(1, 1))).toBe(true);
    image.close();
  });

  describe('where the store joins parts at the end of an object', () => {
    const files = new Map([['pages-1.img', noise(24_000_000, 1)]]);
    const options = { codec: 'none', numShards: 2, minEarlyBytes: 2_200_000 } as const;

    test('most shards are finished while others are written, and those of a large image are larger', async () => {
      const events: string[] = [];
      const store = observed(makeStore(), (event) => void events.push(event));
      const { sealed, manifest } = await writeImage(store, files, options);
      expect(sealed.shards.length).toBeGreaterThan(6);
      // A quarter of what a lane has stored: the last of them may be a little larger than the least.
      for (const { sizeBytes } of sealed.shards) expect(sizeBytes).toBeLessThanOrEqual(24_000_000 / 2 / 4);
      const found = (await readImage(store, manifest)).get('pages-1.img');
      expect(found?.equals(files.get('pages-1.img') ?? noise(1, 1))).toBe(true);
      const early = events.slice(0, events.lastIndexOf('append')).filter((event) => event === 'finish').length;
      expect(early).toBeGreaterThanOrEqual(sealed.shards.length - 4);

      const grown = await writeImage(store, files, { ...options, minEarlyBytes: 300_000, prefix: 'grown' });
      expect(Math.max(...grown.sealed.shards.map(({ sizeBytes }) => sizeBytes))).toBeGreaterThan(1_200_000);
    });

    test('one that cannot be finished fails the image, and nothing of it stays', async () => {
      const store = makeStore();
      let finishes = 0;
      const failing = observed(store, (event) => {
        if (event === 'finish' && ++finishes === 2) throw new Error('no room');
      });
      const image = await createImageWriter({ store: failing, prefix: 'p', ...options });
      const writing = feed(image, 'pages-1.img', files.get('pages-1.img') ?? noise(1, 1)).then(() => image.finish());
      await expectCode('internal', writing, 'no room');
      await image.abort();
      expect(await store.list('')).toEqual([]);
    });
  });

  test('fills each shard in the order of the file', async () => {
    const store = makeStore();
    const { manifest } = await writeImage(store, new Map([['pages-1.img', halves(24)]]), { numShards: 4 });
    if (manifest.image === undefined) throw new Error('no image');
    const { chunks, extents } = await readIndex(store, manifest.image);
    const inOrder = [...new Set(extents.filter((_, i) => i % EXTENT_WORDS === 0))];
    expect(inOrder).toHaveLength(chunks.length);
    const ends = new Map<number, number>();
    for (const chunk of inOrder) {
      const { shard, offset } = chunks.place(chunk);
      expect({ chunk, offset }).toEqual({ chunk, offset: ends.get(shard) ?? offset });
      ends.set(shard, offset + CHUNK_HEADER_BYTES + chunks.storedBytes(chunk));
    }
  });

  test('refuses wrong use', async () => {
    const store = makeStore();
    const image = await createImageWriter({ store, prefix: 'p', numShards: 1, codec: 'none' });
    const file = image.file('a');
    expect(() => image.file('a')).toThrow(/once/);
    expect(() => image.file('')).toThrow(/name/);
    const region = file.reserve();
    expect(() => file.commit((region?.length ?? 0) + 1)).toThrow(/more than was reserved/);
    await expectCode('internal', image.finish(), 'has not ended');
    await image.abort();
    await expectCode('internal', createImageWriter({ store, prefix: '../x', numShards: 1, codec: 'none' }));
  });
});

describe('a reader short of memory', () => {
  const sources = Array.from(
    { length: 20 },
    (_, i) => [`pages-${i}.img`, noise(1_700_000 + i * 50_000, i + 1)] as const,
  );
  const files = new Map<string, Uint8Array>([...sources, ['core-1.img', noise(500, 99)]]);

  test.each(['none', 'lz4'] as const)(
    'goes on while others keep all blocks, with codec %s',
    async (codec) => {
      const store = makeStore();
      const { manifest } = await writeImage(store, files, { codec });
      const blocks = createBlockPool({ fileBlocks: 3, storedBlocks: 1 });
      const image = await openImage({ store, manifest, blocks });
      // The first files take what they can get and never give it back while the others read.
      const kept: Piece[] = [];
      const stalled = [...files.keys()].slice(0, 5).map((name) => image.open(name));
      for (const file of stalled) {
        const piece = await file?.next();
        if (piece !== undefined) kept.push(piece);
      }
      await Promise.all(
        [...files].map(async ([name, bytes]) => {
          const found = await image.readAll(name, 2 ** 30);
          expect(found.equals(bytes)).toBe(true);
        }),
      );
      for (const [i, piece] of kept.entries()) {
        const expected = sources[i]?.[1].subarray(0, piece.bytes.length);
        expect(expected?.equals(piece.bytes)).toBe(true);
        piece.release();
        piece.release();
      }
      for (const file of stalled) file?.close();
      image.close();
      await settled();
      expect(blocks.file.free).toBe(3);
      expect(blocks.stored.free).toBe(1);
    },
    60_000,
  );

  test('gives every block back when files are closed half read', async () => {
    const store = makeStore();
    const { manifest } = await writeImage(store, files);
    const blocks = createBlockPool({ fileBlocks: 8, storedBlocks: 2 });
    const image = await openImage({ store, manifest, blocks });
    const file = image.open('pages-3.img');
    const piece = await file?.next();
    const next = file?.next();
    file?.close();
    file?.close();
    await next?.then(
      (late) => late?.release(),
      () => undefined,
    );
    piece?.release();
    await expectCode('aborted', file?.next() ?? Promise.resolve());
    image.close();
    await settled();
    expect(blocks.file.free).toBe(8);
    expect(blocks.stored.free).toBe(2);
  });

  test('refuses what is missing or too large', async () => {
    const store = makeStore();
    const { manifest } = await writeImage(store, files);
    const image = await openImage({ store, manifest });
    expect(image.open('nothing.img')).toBeUndefined();
    await expectCode('not-found', image.readAll('nothing.img', 10), 'nothing.img');
    await expectCode('image', image.readAll('core-1.img', 499), 'core-1.img');
    image.close();
    image.close();
    await expectCode('aborted', image.readAll('core-1.img', 500));
  });
});

/** What runs on libuv's pool has come back. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 100));
}

/** So many MiB, noise and text in turn: what compresses slowly comes before what compresses fast. */
function halves(count: number): Buffer {
  return Buffer.concat(
    Array.from({ length: count }, (_, i) => (i % 2 === 0 ? noise(1 << 20, i) : Buffer.alloc(1 << 20, `text ${i} `))),
  );
}

/** A store that joins parts at the end of an object, and tells what is done to its writers. */
function observed(store: Store, tell: (event: 'append' | 'finish') => void): Store {
  return {
    ...store,
    joinsAtFinish: true,
    async createWriter(name) {
      const writer = await store.createWriter(name);
      return {
        async append(parts) {
          tell('append');
          await writer.append(parts);
        },
        async finish() {
          tell('finish');
          await writer.finish();
        },
        abort: () => writer.abort(),
      };
    },
  };
}
