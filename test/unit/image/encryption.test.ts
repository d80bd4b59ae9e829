// SPDX-License-Identifier: Apache-2.0
import { beforeAll, describe, expect, test } from '@jest/globals';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createBlockPool } from '../../../src/image/blocks.js';
import { ImageKeys, type KeyMaterial, keyMaterialFor, newKeyMaterial } from '../../../src/image/keys.js';
import { CHUNK_HEADER_BYTES } from '../../../src/image/layout.js';
import {
  type Manifest,
  buildManifest,
  checkSeal,
  parseManifest,
  serializeManifest,
} from '../../../src/image/manifest.js';
import { openImage, readIndex } from '../../../src/image/reader.js';
import { verifyImage } from '../../../src/image/verify.js';
import { createImageWriter } from '../../../src/image/writer.js';
import type { Store } from '../../../src/store/store.js';
import { expectCode } from '../store/conformance.js';
import { feed, makeStore, noise, readAll } from './support.js';

let material: KeyMaterial;
beforeAll(async () => {
  material = await newKeyMaterial('correct horse');
});

const SECRET = Buffer.from('the secret that nobody may read ');
const files = new Map<string, Uint8Array>([
  ['pages-1.img', Buffer.concat([Buffer.alloc(200_000, SECRET), noise(6_000_000, 1)])],
  ['core-1.img', Buffer.alloc(5_000, SECRET)],
  ['empty.img', Buffer.alloc(0)],
]);

/** Writes an encrypted image and reads its manifest back. */
async function write(
  store: Store,
  codec: 'none' | 'lz4' | 'zstd' = 'lz4',
  previous?: Manifest,
  prefix = 'first',
): Promise<Manifest> {
  const keys = new ImageKeys(material);
  const earlier = previous?.image === undefined ? undefined : await readIndex(store, previous.image, keys);
  const image = await createImageWriter({
    store,
    prefix,
    numShards: 1,
    codec,
    keys,
    ...(earlier === undefined ? {} : { previous: { index: earlier, generation: previous?.generation ?? 0 } }),
  });
  for (const [name, bytes] of files) await feed(image, name, bytes);
  const manifest = buildManifest(
    {
      generation: (previous?.generation ?? 0) + 1,
      state: 'checkpoint',
      createdAt: '2026-01-02T03:04:05.678Z',
      writer: { version: '0.1.0', host: 'here', kernel: '6.1', criu: '4.2.1' },
      image: await image.finish(),
      app: { pid: 1000, names: ['ä', '€'] },
    },
    keys,
  );
  return parseManifest(serializeManifest(manifest), { subject: 'manifest' });
}

async function read(store: Store, manifest: Manifest, keys = new ImageKeys(material)): Promise<Map<string, Buffer>> {
  const image = await openImage({ store, manifest, keys });
  try {
    return await readAll(image);
  } finally {
    image.close();
  }
}

const pathOf = (store: Store, name: string): string => join(store.url.slice('file:'.length), name);

describe('an encrypted image', () => {
  test.each(['none', 'lz4', 'zstd'] as const)(
    'comes back with codec %s, and shows nothing of what is in it',
    async (codec) => {
      const store = makeStore();
      const manifest = await write(store, codec);
      const found = await read(store, manifest);
      for (const [name, bytes] of files) expect(found.get(name)?.equals(bytes)).toBe(true);
      for (const { name } of await store.list('')) {
        expect(readFileSync(pathOf(store, name)).includes(SECRET.subarray(0, 12))).toBe(false);
        expect(readFileSync(pathOf(store, name)).includes('core-1.img')).toBe(false);
      }
      expect((await verifyImage(store, manifest, new ImageKeys(material))).damage).toEqual([]);
    },
  );

  test.each(['none', 'lz4'] as const)(
    'is right where a file goes on behind a chunk that waits for a slow store, with codec %s',
    async (codec) => {
      const store = makeStore();
      const slow: Store = {
        ...store,
        async createWriter(name) {
          const writer = await store.createWriter(name);
          return {
            ...writer,
            async append(parts) {
              await new Promise((resolve) => setTimeout(resolve, 3));
              await writer.append(parts);
            },
            finish: () => writer.finish(),
            abort: () => writer.abort(),
          };
        },
      };
      const keys = new ImageKeys(material);
      const blocks = createBlockPool({ fileBlocks: 1, storedBlocks: 1 });
      const bytes = noise(24_000_000, 5);
      const image = await createImageWriter({ store: slow, prefix: 'slow', numShards: 1, codec, keys, blocks });
      await feed(image, 'pages-1.img', bytes, 65_536);
      const sealed = await image.finish();
      const manifest = buildManifest({ ...(await write(makeStore())), image: sealed }, keys);
      expect((await read(store, manifest)).get('pages-1.img')?.equals(bytes)).toBe(true);
    },
    30_000,
  );

  test('reuses chunks of the generation before, where they stand', async () => {
    const store = makeStore();
    const first = await write(store);
    const second = await write(store, 'lz4', first, 'second');
    expect(second.image?.baseGeneration).toBe(1);
    expect(second.image?.storedBytes).toBeLessThan(100_000);
    const found = await read(store, second);
    for (const [name, bytes] of files) expect(found.get(name)?.equals(bytes)).toBe(true);
  });

  test('is not opened without its passphrase, nor with another', async () => {
    const store = makeStore();
    const manifest = await write(store);
    await expectCode('key', openImage({ store, manifest }), 'no passphrase');
    const encryption = manifest.image?.encryption;
    if (encryption === undefined) throw new Error('not encrypted');
    await expectCode('key', keyMaterialFor('wrong horse', encryption, 'it'), 'not the one');
    expect((await keyMaterialFor('correct horse', encryption, 'it')).master).toBe(material.master);
    // Who could make us believe in other keys gets no further.
    const other = new ImageKeys(await newKeyMaterial('correct horse'));
    await expectCode('image', openImage({ store, manifest, keys: other }), 'does not know the passphrase');
  });

  test('a flipped bit anywhere in it is refused', async () => {
    const store = makeStore();
    const manifest = await write(store);
    for (const { name } of await store.list('')) {
      const good = readFileSync(pathOf(store, name));
      for (let i = 0; i < 12; i++) {
        const bad = Buffer.from(good);
        const at = (i * 7919 * 104_729) % bad.length;
        bad.writeUInt8(bad.readUInt8(at) ^ (1 << (i % 8)), at);
        writeFileSync(pathOf(store, name), bad);
        await expectCode('image', read(store, manifest));
      }
      writeFileSync(pathOf(store, name), good);
    }
    await read(store, manifest);
  });

  test('chunks that changed places, or come from another image of the same keys, are refused', async () => {
    const store = makeStore();
    const manifest = await write(store, 'none');
    if (manifest.image === undefined) throw new Error('no image');
    const { chunks, shards } = await readIndex(store, manifest.image, new ImageKeys(material));
    const all = Array.from({ length: chunks.length }, (_, i) => i);
    const one = all.find((i) => all.some((j) => j > i && chunks.storedBytes(j) === chunks.storedBytes(i))) ?? 0;
    const other = all.find((j) => j > one && chunks.storedBytes(j) === chunks.storedBytes(one)) ?? 0;
    expect(one).not.toBe(other);
    const { shard } = chunks.place(one);
    const path = pathOf(store, `${shards[shard]?.prefix}-${shards[shard]?.number}.ffs`);
    const good = readFileSync(path);
    const bad = Buffer.from(good);
    const length = CHUNK_HEADER_BYTES + chunks.storedBytes(one);
    const [a, b] = [chunks.place(one).offset, chunks.place(other).offset];
    good.copy(bad, a, b, b + length);
    good.copy(bad, b, a, a + length);
    writeFileSync(path, bad);
    await expectCode('image', read(store, manifest), 'not what was encrypted for this place');
    writeFileSync(path, good);
    const second = await write(store, 'none', undefined, 'second');
    const twin = pathOf(store, `second-${shards[shard]?.number}.ffs`);
    writeFileSync(path, readFileSync(twin));
    if (readFileSync(twin).length === good.length) await expectCode('image', read(store, manifest));
    await read(store, second);
  });

  test('a manifest that was edited and given a right checksum is refused', async () => {
    const store = makeStore();
    const manifest = await write(store);
    const keys = new ImageKeys(material);
    checkSeal(manifest, keys, 'it');
    const edited = buildManifest({ ...manifest, app: { pid: 1000, names: ['ä', 'x'] } });
    await expectCode('image', read(store, parseManifest(serializeManifest(edited), { subject: 'it' })), 'changed');
    const later = buildManifest({ ...manifest, createdAt: '2026-01-02T03:04:05.679Z' });
    await expectCode('image', read(store, later), 'changed');
  });

  test('a manifest cannot make us spend memory or time without bound', async () => {
    const { derivation } = material;
    for (const cost of [{ n: 2 ** 24 }, { r: 64, n: 2 ** 20 }, { p: 65 }]) {
      await expectCode('image', keyMaterialFor('x', { ...derivation, ...cost }, 'it'), 'more memory');
    }
  });
});
