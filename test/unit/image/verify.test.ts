// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { chooseGenerations, commitManifest, readManifest } from '../../../src/image/generations.js';
import { CHUNK_HEADER_BYTES } from '../../../src/image/layout.js';
import { type Manifest, buildManifest, serializeManifest } from '../../../src/image/manifest.js';
import { manifestName, shardName } from '../../../src/image/names.js';
import { readIndex } from '../../../src/image/reader.js';
import { verifyGeneration } from '../../../src/image/verify.js';
import { expectCode } from '../store/conformance.js';
import { makeStore, manifestOf, noise, writeImage } from './support.js';

const FILES = new Map([
  ['pages-1.img', noise(3_000_000, 1)],
  ['core-1.img', Buffer.alloc(100_000, 'core')],
]);

async function commit(
  store: ReturnType<typeof makeStore>,
  generation = 1,
  codec: 'none' | 'lz4' | 'zstd' = 'lz4',
): Promise<Manifest> {
  const { manifest } = await writeImage(store, FILES, { generation, codec });
  expect(await commitManifest(store, manifest)).toBe('created');
  return manifest;
}

/** Where each chunk lies. */
async function places(
  store: ReturnType<typeof makeStore>,
  manifest: Manifest,
): Promise<{ object: string; offset: number; storedBytes: number }[]> {
  if (manifest.image === undefined) return [];
  const index = await readIndex(store, manifest.image);
  return Array.from({ length: index.chunks.length }, (_, chunk) => {
    const { shard, offset } = index.chunks.place(chunk);
    const { prefix = '', number = 0 } = index.shards[shard] ?? {};
    return { object: shardName(prefix, number), offset, storedBytes: index.chunks.storedBytes(chunk) };
  });
}

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] ?? 0) ^ 0x10;
  writeFileSync(path, bytes);
}

describe('verifying', () => {
  test.each(['none', 'lz4', 'zstd'] as const)('reads every byte of a sound image (%s) once', async (codec) => {
    const store = makeStore();
    const { image } = await commit(store, 1, codec);
    const verified = await verifyGeneration(store, 1);
    expect(verified).toMatchObject({ generation: 1, state: 'checkpoint', chunks: image?.chunks, damage: [] });
    const sizes = [image?.index, ...(image?.shards ?? [])].map((object) => object?.sizeBytes ?? 0);
    expect(verified.storedBytes).toBe(sizes.reduce((sum, size) => sum + size));
    expect(verified.rawBytes).toBe(3_100_000);
  });

  test('names each damaged chunk by object and offset, and goes on', async () => {
    const store = makeStore();
    const all = await places(store, await commit(store));
    const hit = [0, all.length - 1].map((i) => all[i]).filter((one) => one !== undefined);
    for (const { object, offset, storedBytes } of hit) {
      flip(join(store.directory, object), offset + CHUNK_HEADER_BYTES + (storedBytes >> 1));
    }
    const { damage, chunks } = await verifyGeneration(store, 1);
    expect(chunks).toBe(all.length);
    const found = damage.map(({ object, offset }) => `${object} ${offset ?? ''}`);
    expect(found.sort()).toEqual(hit.map(({ object, offset }) => `${object} ${offset}`).sort());
    for (const { reason } of damage) expect(reason).toMatch(/^its (checksum|lz4 data)/);
  });

  test('finds a flipped byte wherever it is', async () => {
    const store = makeStore();
    const { image } = await commit(store);
    const names = [manifestName(1), image?.index.name ?? '', ...(image?.shards ?? []).map((shard) => shard.name)];
    for (const name of names) {
      const path = join(store.directory, name);
      const good = readFileSync(path);
      for (const at of [0, 40, good.length >> 1, good.length - 1]) {
        flip(path, at);
        const { damage } = await verifyGeneration(store, 1);
        expect([at, damage.map((one) => one.object)]).toEqual([at, [name]]);
        writeFileSync(path, good);
      }
    }
    expect((await verifyGeneration(store, 1)).damage).toEqual([]);
  });

  test('tells missing and cut objects, and checks what is left', async () => {
    const store = makeStore();
    // One lane that rolls over: at least two shards, however the chunks' compression is timed.
    const { manifest } = await writeImage(store, FILES, { numShards: 1, maxShardBytes: 1_500_000 });
    await commitManifest(store, manifest);
    const { image } = manifest;
    const all = await places(store, manifest);
    const chunksOf = (name: string): number => all.filter(({ object }) => object === name).length;
    const names = (image?.shards ?? []).map(({ name }) => name).sort((one, other) => chunksOf(one) - chunksOf(other));
    const [missing = '', cut = ''] = [names[0], names.at(-1)];
    const cutFile = join(store.directory, cut);
    rmSync(join(store.directory, missing));
    truncateSync(cutFile, statSync(cutFile).size - 1);
    const verified = await verifyGeneration(store, 1);
    expect(verified.damage).toHaveLength(2);
    expect(verified.damage).toEqual(
      expect.arrayContaining([
        { object: missing, offset: null, reason: 'it is missing' },
        { object: cut, offset: null, reason: expect.stringMatching(/^it has \d+ bytes where/) as unknown },
      ]),
    );
    // All but those of the missing shard and the last one of the cut shard.
    const left = all.length - chunksOf(missing) - 1;
    expect(left).toBeGreaterThan(0);
    expect(verified.chunks).toBe(left);
    rmSync(join(store.directory, image?.index.name ?? ''));
    expect((await verifyGeneration(store, 1)).damage).toContainEqual({
      object: image?.index.name,
      offset: null,
      reason: 'it is missing',
    });
  });

  test('refuses manifests of others, and shard names that lead elsewhere', async () => {
    const store = makeStore();
    const { sealed } = await writeImage(store, FILES);
    const manifest = manifestOf(sealed);
    writeFileSync(join(store.directory, manifestName(1)), '{"schemaVersion": 2}\n');
    expect((await verifyGeneration(store, 1)).damage).toMatchObject([
      { object: manifestName(1), offset: null, reason: expect.stringContaining('another tool') as unknown },
    ]);
    for (const name of ['../x-1.ffs', '/etc/passwd', 'x/../../y-1.ffs', '..', 'x-1.ffs\0']) {
      const [shard] = sealed.shards;
      const forged = { ...manifest, image: { ...sealed, shards: [{ name, sizeBytes: shard?.sizeBytes ?? 0 }] } };
      expect(() => buildManifest(forged)).toThrow('shards');
      // With a right checksum even: only the names are wrong.
      writeFileSync(join(store.directory, manifestName(1)), serializeForged(forged));
      expect(await verifyGeneration(store, 1)).toMatchObject({
        state: null,
        damage: [{ object: manifestName(1), reason: expect.stringContaining('image.shards') as unknown }],
      });
    }
  });

  test('has nothing to read where the job has finished, and does not hide what is no damage', async () => {
    const store = makeStore();
    const { createdAt, writer } = await commit(store);
    const finished = buildManifest({
      createdAt,
      writer,
      generation: 2,
      state: 'finished',
      finished: { exitCode: 0, signal: null },
    });
    expect(await commitManifest(store, finished)).toBe('created');
    expect(await verifyGeneration(store, 2)).toMatchObject({ state: 'finished', chunks: 0, damage: [] });
    await expectCode('not-found', verifyGeneration(store, 3), manifestName(3));
    const failing = { ...store, openReader: () => Promise.reject(new Error('broken')) };
    await expect(verifyGeneration(failing, 1)).rejects.toThrow('broken');
  });
});

describe('choosing generations', () => {
  test('takes the newest, one, or all, and says what there is', async () => {
    const store = makeStore();
    await expectCode('not-found', chooseGenerations(store, 'newest'), 'there is none');
    await expectCode('not-found', chooseGenerations(store, 'all'), store.url);
    const manifest = await commit(store);
    for (const generation of [2, 5]) await commitManifest(store, buildManifest({ ...manifest, generation }));
    expect(await chooseGenerations(store, 'newest')).toEqual([5]);
    expect(await chooseGenerations(store, 'all')).toEqual([1, 2, 5]);
    expect(await chooseGenerations(store, 2)).toEqual([2]);
    await expectCode('not-found', chooseGenerations(store, 3), 'no generation 3');
    await readManifest(store, 5);
  });
});

/** The bytes of a manifest whose fields are not checked. */
function serializeForged(manifest: Manifest): Buffer {
  const unsigned = serializeManifest(manifest).toString('utf8');
  const body = unsigned.slice(0, unsigned.lastIndexOf(',\n  "checksum"'));
  const checksum = createHash('sha256').update(body).digest('hex');
  return Buffer.from(`${body},\n  "checksum": "${checksum}"\n}\n`);
}
