// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { copyVerified } from '../../../src/image/copy.js';
import { commitManifest, listGenerations, readManifest } from '../../../src/image/generations.js';
import { manifestName } from '../../../src/image/names.js';
import { readIndex } from '../../../src/image/reader.js';
import type { Store } from '../../../src/store/store.js';
import { expectCode } from '../store/conformance.js';
import { type Written, faultyStore, makeStore, noise, readImage, writeImage } from './support.js';

async function commit(store: Store, generation: number, seed = 1, previous?: Written): Promise<Written> {
  const files = new Map([
    ['pages-1.img', noise(2_500_000, seed)],
    ['core-1.img', Buffer.from(`generation ${generation}`)],
  ]);
  const base = previous && { index: await readIndex(store, previous.sealed), generation: generation - 1 };
  const written = await writeImage(store, files, { generation, ...(base === undefined ? {} : { previous: base }) });
  expect(await commitManifest(store, written.manifest)).toBe('created');
  return written;
}

const expectSame = async (store: Store, generation: number, seed = 1): Promise<void> => {
  const files = await readImage(store, await readManifest(store, generation));
  expect(files.get('pages-1.img')?.equals(noise(2_500_000, seed))).toBe(true);
};

describe('copying', () => {
  test('brings an image byte for byte, and again brings nothing', async () => {
    const [from, to] = [makeStore(), makeStore()];
    const { sealed } = await commit(from, 1);
    const bytes = [sealed.index, ...sealed.shards].reduce((sum, object) => sum + object.sizeBytes, 0);
    expect(await copyVerified(from, to, 1)).toEqual({ generation: 1, outcome: 'copied', copiedBytes: bytes });
    expect(readdirSync(to.directory).sort()).toEqual(readdirSync(from.directory).sort());
    for (const name of readdirSync(from.directory)) {
      expect(readFileSync(join(to.directory, name)).equals(readFileSync(join(from.directory, name)))).toBe(true);
    }
    expect(await copyVerified(from, to, 1)).toEqual({ generation: 1, outcome: 'present', copiedBytes: 0 });
    await expectSame(to, 1);
  });

  test('of one that borrows brings what it borrows, alone or after its base', async () => {
    const [from, alone, both] = [makeStore(), makeStore(), makeStore()];
    await commit(from, 2, 1, await commit(from, 1));
    await copyVerified(from, alone, 2);
    expect(await listGenerations(alone)).toEqual([2]);
    await expectSame(alone, 2);
    const first = await copyVerified(from, both, 1);
    const second = await copyVerified(from, both, 2);
    expect(second.copiedBytes).toBeLessThan(first.copiedBytes / 10);
    await expectSame(both, 2);
  });

  test('refuses another generation of the same number before it writes anything', async () => {
    const [from, to] = [makeStore(), makeStore()];
    await commit(from, 1);
    await commit(to, 1, 2);
    const before = readdirSync(to.directory).sort();
    await expectCode('conflict', copyVerified(from, to, 1), 'another generation 1');
    expect(readdirSync(to.directory).sort()).toEqual(before);
    await expectSame(to, 1, 2);
  });

  test('loses to a checkpoint that commits the number meanwhile, and leaves it alone', async () => {
    const [from, to] = [makeStore(), makeStore()];
    await commit(from, 1);
    const racing: Store = {
      ...to,
      createIfAbsent: async (name, bytes) => {
        if ((await listGenerations(to)).length === 0) await commit(to, 1, 2);
        return await to.createIfAbsent(name, bytes);
      },
    };
    await expectCode('conflict', copyVerified(from, racing, 1), 'another generation 1');
    await expectSame(to, 1, 2);
  });

  test('of an older generation leaves the hint to the newest', async () => {
    const [from, to] = [makeStore(), makeStore()];
    for (const generation of [1, 2]) await commit(from, generation);
    for (const generation of [2, 1]) await copyVerified(from, to, generation);
    const hint = readFileSync(join(to.directory, 'manifest.json'));
    expect(hint.equals(readFileSync(join(to.directory, manifestName(2))))).toBe(true);
  });

  test('of a damaged source is not committed and leaves nothing', async () => {
    const [from, to] = [makeStore(), makeStore()];
    const { sealed } = await commit(from, 1);
    const path = join(from.directory, sealed.shards[0]?.name ?? '');
    const bytes = readFileSync(path);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    await expectCode('image', copyVerified(from, to, 1), 'damaged');
    writeFileSync(path, bytes.subarray(1));
    await expectCode('image', copyVerified(from, to, 1), 'where the manifest says');
    expect(readdirSync(to.directory)).toEqual([]);
  });

  test('that fails at any write commits nothing, and succeeds the next time', async () => {
    const from = makeStore();
    await commit(from, 1);
    for (let failAt = 1; ; failAt++) {
      const to = makeStore();
      const faulty = faultyStore(to, failAt);
      const outcome = await copyVerified(from, faulty, 1).catch(() => 'failed' as const);
      if (outcome === 'failed') expect(await listGenerations(to)).toEqual([]);
      await copyVerified(from, to, 1);
      await expectSame(to, 1);
      if (faulty.calls() < failAt) {
        expect(failAt).toBeGreaterThan(5);
        return;
      }
    }
  });
});
