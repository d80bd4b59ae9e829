// SPDX-License-Identifier: Apache-2.0
import { readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { FastFreezeError } from '../../../src/base/errors.js';
import { commitManifest, listGenerations, readManifest } from '../../../src/image/generations.js';
import { buildManifest } from '../../../src/image/manifest.js';
import { manifestName } from '../../../src/image/names.js';
import { pruneGenerations, removeUncommitted } from '../../../src/image/prune.js';
import { readIndex } from '../../../src/image/reader.js';
import { createImageWriter } from '../../../src/image/writer.js';
import type { Store } from '../../../src/store/store.js';
import { expectCode } from '../store/conformance.js';
import { type Written, feed, makeStore, manifestOf, noise, readImage, writeImage } from './support.js';

const HOUR_MS = 3600_000;

async function commitGeneration(store: Store, generation: number, previous?: Written): Promise<Written> {
  const files = new Map([
    ['pages-1.img', noise(400_000, 1)],
    ['core-1.img', Buffer.from(`generation ${generation}`)],
  ]);
  const base = previous && { index: await readIndex(store, previous.sealed), generation: generation - 1 };
  const written = await writeImage(store, files, { generation, ...(base === undefined ? {} : { previous: base }) });
  expect(await commitManifest(store, written.manifest)).toBe('created');
  return written;
}

const fail = (message: string): never => {
  throw new Error(message);
};

const objectsOf = ({ sealed }: Written): string[] => [sealed.index.name, ...sealed.shards.map((shard) => shard.name)];

describe('pruning', () => {
  test('keeps the newest generations and exactly what they need', async () => {
    const store = makeStore();
    const written: Written[] = [];
    for (let generation = 1; generation <= 5; generation++) written.push(await commitGeneration(store, generation));
    const result = await pruneGenerations(store, 2);
    expect(result.generations).toEqual([1, 2, 3]);
    expect(await listGenerations(store)).toEqual([4, 5]);
    const expected = [...written.slice(3).flatMap(objectsOf), manifestName(4), manifestName(5), 'manifest.json'];
    expect(readdirSync(store.directory).sort()).toEqual(expected.sort());
    for (const generation of [4, 5]) await readImage(store, await readManifest(store, generation));
  });

  test('keeps what newer generations borrow, as long as they do', async () => {
    const store = makeStore();
    const first = await commitGeneration(store, 1);
    const second = await commitGeneration(store, 2, first);
    const third = await commitGeneration(store, 3, second);
    const borrowed = third.sealed.shards.map((shard) => shard.name).filter((name) => objectsOf(first).includes(name));
    expect(borrowed.length).toBeGreaterThan(0);
    await pruneGenerations(store, 1);
    expect(await listGenerations(store)).toEqual([3]);
    const found = await readImage(store, await readManifest(store, 'newest'));
    expect(found.get('pages-1.img')?.equals(noise(400_000, 1))).toBe(true);
    expect(readdirSync(store.directory)).not.toContain(first.sealed.index.name);

    const alone = await commitGeneration(store, 4);
    await pruneGenerations(store, 1);
    const expected = [...objectsOf(alone), manifestName(4), 'manifest.json'];
    expect(readdirSync(store.directory).sort()).toEqual(expected.sort());
  });

  test('never removes the last generation', async () => {
    const store = makeStore();
    await commitGeneration(store, 1);
    await pruneGenerations(store, 0);
    await readImage(store, await readManifest(store, 'newest'));
  });

  test('leaves what nobody knows until it is old, and what is not ours for ever', async () => {
    const store = makeStore();
    await commitGeneration(store, 1);
    const strays = ['other-1.ffs', 'other.ffi', '.other-2.ffs.tmp-0123456789abcdef'];
    for (const name of [...strays, 'notes.txt']) writeFileSync(join(store.directory, name), 'x');
    await pruneGenerations(store, 1, { graceMs: HOUR_MS });
    for (const name of strays) expect(readdirSync(store.directory)).toContain(name);
    // One young object of a prefix protects the others: its writer may still be at work.
    const old = new Date(Date.now() - 2 * HOUR_MS);
    utimesSync(join(store.directory, 'other-1.ffs'), old, old);
    await pruneGenerations(store, 1, { graceMs: HOUR_MS });
    expect(readdirSync(store.directory)).toContain('other-1.ffs');
    for (const name of [...strays, 'notes.txt']) utimesSync(join(store.directory, name), old, old);
    await pruneGenerations(store, 1, { graceMs: HOUR_MS });
    for (const name of strays) expect(readdirSync(store.directory)).not.toContain(name);
    expect(readdirSync(store.directory)).toContain('notes.txt');
    await readImage(store, await readManifest(store, 'newest'));
  });

  test('removes nothing when a manifest to keep cannot be read', async () => {
    const store = makeStore();
    for (const generation of [1, 2, 3]) await commitGeneration(store, generation);
    writeFileSync(join(store.directory, manifestName(2)), 'damaged');
    const before = readdirSync(store.directory);
    await expectCode('image', pruneGenerations(store, 2), manifestName(2));
    expect(readdirSync(store.directory)).toEqual(before);
  });

  test('removes what is beyond the newest and old enough, and a dry run says exactly that', async () => {
    const store = makeStore();
    const written: Written[] = [];
    for (let generation = 1; generation <= 4; generation++) written.push(await commitGeneration(store, generation));
    // Every manifest of these tests says that it is of this time.
    const madeAtMs = Date.parse('2026-01-02T03:04:05.678Z');
    const before = readdirSync(store.directory).sort();
    const young = { olderThanMs: HOUR_MS, nowMs: madeAtMs + HOUR_MS };
    expect(await pruneGenerations(store, 2, young)).toEqual({ generations: [], objects: [], removedBytes: 0 });
    const old = { olderThanMs: HOUR_MS, nowMs: madeAtMs + HOUR_MS + 1 };
    const told = await pruneGenerations(store, 2, { ...old, dryRun: true });
    expect(readdirSync(store.directory).sort()).toEqual(before);
    const done = await pruneGenerations(store, 2, old);
    expect(done).toEqual(told);
    expect(done.generations).toEqual([1, 2]);
    expect(done.objects.sort()).toEqual(written.slice(0, 2).flatMap(objectsOf).sort());
    expect(done.removedBytes).toBeGreaterThan(800_000);
    expect(await listGenerations(store)).toEqual([3, 4]);
    for (const generation of [3, 4]) await readImage(store, await readManifest(store, generation));
  });

  test('by age keeps the newest however old it is, and what a young one in between needs', async () => {
    const store = makeStore();
    const first = await commitGeneration(store, 1);
    await commitGeneration(store, 2, first);
    // By its own clock, generation 2 was made long after 3.
    const manifest = await readManifest(store, 2);
    await store.remove(manifestName(2));
    await commitManifest(store, buildManifest({ ...manifest, createdAt: '2026-06-01T00:00:00.000Z' }));
    await commitGeneration(store, 3);
    const options = { olderThanMs: HOUR_MS, nowMs: Date.parse('2026-06-01T00:30:00.000Z') };
    expect((await pruneGenerations(store, 1, options)).generations).toEqual([1]);
    expect(await listGenerations(store)).toEqual([2, 3]);
    for (const generation of [2, 3]) await readImage(store, await readManifest(store, generation));
    // A manifest that cannot be read goes by the age of its object, which is young.
    writeFileSync(join(store.directory, manifestName(2)), 'damaged');
    await expectCode('image', pruneGenerations(store, 1, { olderThanMs: HOUR_MS }), manifestName(2));
    expect((await pruneGenerations(store, 1)).generations).toEqual([2]);
    await readImage(store, await readManifest(store, 3));
  });

  test('beside a writer never removes what it is writing', async () => {
    const store = makeStore();
    let previous = await commitGeneration(store, 1);
    const pruning = { over: false };
    const prunes = (async () => {
      while (!pruning.over) {
        await pruneGenerations(store, 1).catch((error: unknown) => {
          // The writer's own pruning may take a manifest between our listing and our reading.
          if (!(error instanceof FastFreezeError) || error.code !== 'not-found') throw error;
        });
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    })();
    try {
      for (let generation = 2; generation <= 12; generation++) {
        previous = await commitGeneration(store, generation, previous);
        await readImage(store, previous.manifest);
      }
    } finally {
      pruning.over = true;
      await prunes;
    }
  });

  test('killed after any step leaves every manifest restorable', async () => {
    for (let steps = 0; ; steps++) {
      const store = makeStore();
      for (const generation of [1, 2, 3]) await commitGeneration(store, generation);
      let left = steps;
      const dying: Store = {
        ...store,
        remove: (name) => (left-- > 0 ? store.remove(name) : Promise.reject(new Error('killed'))),
      };
      const outcome = await pruneGenerations(dying, 1).catch(() => 'killed');
      for (const generation of await listGenerations(store)) {
        await readImage(store, await readManifest(store, generation));
      }
      expect(await listGenerations(store)).toContain(3);
      if (outcome !== 'killed') {
        expect(steps).toBeGreaterThan(4);
        return;
      }
    }
  });
});

describe('removing what was not committed', () => {
  test('takes all of the prefix and nothing else', async () => {
    const store = makeStore();
    await commitGeneration(store, 1);
    const before = readdirSync(store.directory).sort();
    const image = await createImageWriter({ store, prefix: 'gone', numShards: 2, codec: 'none' });
    await feed(image, 'pages-1.img', noise(3_000_000, 5));
    await image.finish();
    for (const name of ['gone-2-1.ffs', '.gone-2-1.ffs.tmp-0123456789abcdef', '.gone-3.ffs.tmp-0123456789abcdef']) {
      writeFileSync(join(store.directory, name), 'x');
    }
    const removed = await removeUncommitted(store, 'gone');
    expect(removed).toContain('gone.ffi');
    expect(readdirSync(store.directory).sort()).toEqual(
      [...before, 'gone-2-1.ffs', '.gone-2-1.ffs.tmp-0123456789abcdef'].sort(),
    );
  });

  test('takes what a dead writer had begun of manifests, and a neighbour that is writing one begins again', async () => {
    const store = makeStore();
    const { sealed } = await writeImage(store, new Map([['core-1.img', Buffer.from('x')]]), { generation: 1 });
    const names = ['manifest-00000001.json', 'manifest.json', 'probe'].map((name) => `.${name}.tmp-0123456789abcdef`);
    for (const name of names) writeFileSync(join(store.directory, name), 'x');
    // Fewer times than a writer begins again, so that it is no matter of luck.
    const sweeps = (async () => {
      for (let i = 0; i < 8; i++) {
        await removeUncommitted(store, 'gone');
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    })();
    try {
      for (let generation = 1; generation <= 40; generation++) {
        expect(await commitManifest(store, manifestOf(sealed, generation), { warn: fail })).toBe('created');
      }
    } finally {
      await sweeps;
    }
    await removeUncommitted(store, 'gone');
    expect(readdirSync(store.directory).filter((name) => name.startsWith('.'))).toEqual([]);
    expect((await listGenerations(store)).length).toBe(40);
  });

  test('leaves a complete image where its manifest may still arrive', async () => {
    const store = makeStore();
    const { sealed, manifest } = await writeImage(store, new Map([['core-1.img', noise(5000, 1)]]), { generation: 1 });
    const late: Store = { ...store, writesArriveLate: true };
    expect(await removeUncommitted(late, sealed.prefix)).toEqual([]);
    expect(await commitManifest(store, manifest)).toBe('created');
    await readImage(store, await readManifest(store, 'newest'));
    // Half of one cannot be committed any more.
    writeFileSync(join(store.directory, 'half-1.ffs'), 'x');
    expect(await removeUncommitted(late, 'half')).toEqual(['half-1.ffs']);
  });

  test('keeps an image that was committed after all', async () => {
    const store = makeStore();
    const { sealed } = await commitGeneration(store, 1);
    expect(await removeUncommitted(store, sealed.prefix)).toEqual([]);
    await readImage(store, await readManifest(store, 'newest'));
  });
});
