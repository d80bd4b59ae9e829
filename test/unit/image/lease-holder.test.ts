// SPDX-License-Identifier: Apache-2.0
import { readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { inspect } from '../../../src/engine/inspect.js';
import { readCatalog } from '../../../src/image/catalog.js';
import { copyVerified } from '../../../src/image/copy.js';
import { commitManifest } from '../../../src/image/generations.js';
import { readLease } from '../../../src/image/lease-holder.js';
import { pruneGenerations } from '../../../src/image/prune.js';
import { LEASE_NAME, serializeLease, type LeaseHolder } from '../../../src/store/lease/record.js';
import { makeStore, noise, writeImage } from './support.js';

const HOUR_MS = 3600_000;
const FILES = new Map([['pages-1.img', noise(1000, 1)]]);

const HOLDER = { id: '0123456789abcdef', host: 'node-7', pid: 4711, bootId: 'b' };
const lease = (holder: LeaseHolder | null): string => serializeLease({ holder, ttlMs: 30_000, counter: 5 }).toString();

async function storeWith(text: string): Promise<ReturnType<typeof makeStore>> {
  const store = makeStore();
  await commitManifest(store, (await writeImage(store, FILES)).manifest);
  writeFileSync(join(store.directory, LEASE_NAME), text);
  return store;
}

describe('who has the lease of a job', () => {
  test('is shown by list and inspect, and not copied', async () => {
    const store = await storeWith(lease(HOLDER));
    const holder = { host: 'node-7', pid: 4711 };
    expect((await readCatalog(store.url)).jobs).toMatchObject([{ holder }]);
    expect(await inspect(store, 'newest')).toMatchObject({ holder });
    const copy = makeStore();
    await copyVerified(store, copy, 1);
    expect(readdirSync(copy.directory)).not.toContain(LEASE_NAME);
    expect((await readCatalog(copy.url)).jobs).toMatchObject([{ holder: null }]);
  });

  test('is nobody when it was released; what cannot be understood counts as held by somebody', async () => {
    expect(await readLease(makeStore())).toEqual({ held: false, holder: null });
    expect(await readLease(await storeWith(lease(null)))).toEqual({ held: false, holder: null });
    for (const text of [
      '',
      'no JSON',
      '{}',
      lease(null).replace('"formatVersion": 1', '"formatVersion": 2'),
      'x'.repeat(100_000),
    ]) {
      expect(await readLease(await storeWith(text))).toEqual({ held: true, holder: null });
    }
  });

  test('keeps prune off what may be a checkpoint under way, and prune never takes the lease', async () => {
    for (const [text, isHeld] of [
      [lease(HOLDER), true],
      ['damaged', true],
      [lease(null), false],
    ] as const) {
      const store = await storeWith(text);
      const names = ['under-way-1.ffs', 'under-way.ffi'];
      const age = (hours: number): void => {
        const time = new Date(Date.now() - hours * HOUR_MS);
        for (const name of [...names, LEASE_NAME]) utimesSync(join(store.directory, name), time, time);
      };
      for (const name of names) writeFileSync(join(store.directory, name), 'x');
      age(2);
      await pruneGenerations(store, 1, { graceMs: HOUR_MS });
      for (const name of names) expect(readdirSync(store.directory).includes(name)).toBe(isHeld);
      for (const name of names) writeFileSync(join(store.directory, name), 'x');
      age(25);
      expect((await pruneGenerations(store, 1)).objects.sort()).toEqual(names);
      expect(readdirSync(store.directory)).toContain(LEASE_NAME);
    }
  });

  test('changes nothing of what was committed while prune looked', async () => {
    const store = await storeWith(lease(HOLDER));
    // Its checkpoint took more than a day; it commits between prune's first look and its last.
    const { manifest } = await writeImage(store, FILES, { generation: 2 });
    const old = new Date(Date.now() - 25 * HOUR_MS);
    for (const name of readdirSync(store.directory)) utimesSync(join(store.directory, name), old, old);
    let looks = 0;
    const late = {
      ...store,
      list: async (prefix: string) => {
        if (prefix === 'manifest-' && ++looks === 2) await commitManifest(store, manifest);
        return await store.list(prefix);
      },
    };
    expect((await pruneGenerations(late, 1)).objects).toEqual([]);
    expect(looks).toBe(2);
    expect((await inspect(store, 2)).image?.files).toBe(FILES.size);
  });
});
