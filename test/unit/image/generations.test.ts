// SPDX-License-Identifier: Apache-2.0
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { commitManifest, listGenerations, readManifest } from '../../../src/image/generations.js';
import { HINT_NAME, manifestName, newPrefix } from '../../../src/image/names.js';
import { createImageWriter } from '../../../src/image/writer.js';
import { type Store, openStore } from '../../../src/store/store.js';
import { expectCode } from '../store/conformance.js';
import { faultyStore, feed, makeStore, manifestOf, readImage, writeImage } from './support.js';

const files = new Map([['core-1.img', Buffer.from('one')]]);

describe('a commit', () => {
  test('of twins exactly one is created, and that one is read', async () => {
    for (let generation = 1; generation <= 5; generation++) {
      const store = makeStore();
      const twins = await Promise.all(
        ['a', 'b', 'c', 'd'].map(async (text) => {
          const mine = openStore(store.directory);
          const { manifest } = await writeImage(mine, new Map([['x', Buffer.from(text)]]), { generation });
          return { text, outcome: await commitManifest(mine, manifest) };
        }),
      );
      const winners = twins.filter((twin) => twin.outcome === 'created');
      expect(winners).toHaveLength(1);
      const found = await readImage(store, await readManifest(store, 'newest'));
      expect(found.get('x')?.toString()).toBe(winners[0]?.text);
    }
  });

  test('stands when its hint cannot be written, which is said', async () => {
    const store = makeStore();
    const { manifest } = await writeImage(store, files);
    const warnings: string[] = [];
    const outcome = await commitManifest(faultyStore(store, 2), manifest, { warn: (text) => warnings.push(text) });
    expect(outcome).toBe('created');
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain('ENOSPC');
    expect((await readManifest(store, 'newest')).generation).toBe(1);
    expect(await store.size(HINT_NAME)).toBeUndefined();
  });

  test('writes shards, then the index, then the manifest, then the hint, each durable before the next', async () => {
    const store = makeStore();
    const events: string[] = [];
    const image = await createImageWriter({
      store: recording(store, events),
      prefix: 'p',
      numShards: 2,
      codec: 'none',
    });
    const random = Buffer.from(Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * i) % 251));
    await feed(image, 'pages-1.img', random);
    const sealed = await image.finish();
    await commitManifest(recording(store, events), manifestOf(sealed));
    const shards = sealed.shards.map((shard) => shard.name);
    const finishedShards = events.slice(-4 - shards.length, -4);
    expect(finishedShards.sort()).toEqual(shards.map((name) => `finished ${name}`).sort());
    expect(events.slice(-4)).toEqual([
      'begin p.ffi',
      'finished p.ffi',
      'created manifest-00000001.json',
      'put manifest.json',
    ]);
  });
});

describe('reading a generation', () => {
  test('takes the highest number, not the last name or the hint', async () => {
    const store = makeStore();
    for (const generation of [2, 99_999_999, 100_000_000, 10]) {
      const { manifest } = await writeImage(store, files, { generation });
      await commitManifest(store, manifest);
    }
    for (const stray of ['manifest-1.json', 'manifest-00000abc.json', 'manifest-000000010.json']) {
      writeFileSync(join(store.directory, stray), '{}');
    }
    expect(await listGenerations(store)).toEqual([2, 10, 99_999_999, 100_000_000]);
    expect((await readManifest(store, 'newest')).generation).toBe(100_000_000);
    expect((await readManifest(store, 2)).generation).toBe(2);
  });

  test('of none says so', async () => {
    const store = makeStore();
    await expectCode('not-found', readManifest(store, 'newest'), store.directory);
    await expectCode('not-found', readManifest(store, 7), manifestName(7));
  });

  test('never falls back from a damaged one to an older one', async () => {
    const store = makeStore();
    await commitManifest(store, (await writeImage(store, files, { generation: 1 })).manifest);
    writeFileSync(join(store.directory, manifestName(2)), '{"format":');
    await expectCode('image', readManifest(store, 'newest'), manifestName(2));
  });

  test('refuses a manifest under another number', async () => {
    const store = makeStore();
    const { manifest } = await writeImage(store, files, { generation: 1 });
    await commitManifest(store, manifest);
    const bytes = Buffer.alloc((await store.size(manifestName(1))) ?? 0);
    await store.read(manifestName(1), 0, bytes);
    await store.put(manifestName(2), bytes);
    await expectCode('image', readManifest(store, 'newest'), 'renamed');
  });

  test('refuses a manifest too large to be one', async () => {
    const store = makeStore();
    await store.put(manifestName(1), Buffer.alloc(17 * 2 ** 20, ' '));
    await expectCode('image', readManifest(store, 'newest'), 'too large');
  });
});

describe('prefixes', () => {
  test('are new each time and sort by time', () => {
    expect(newPrefix(new Date('2026-11-22T05:30:00.123Z'))).toMatch(/^20261122T053000Z-[0-9a-f]{12}$/);
    expect(newPrefix()).not.toBe(newPrefix());
  });
});

function recording(store: Store, events: string[]): Store {
  return {
    ...store,
    async createWriter(name) {
      events.push(`begin ${name}`);
      const writer = await store.createWriter(name);
      return {
        append: (parts) => writer.append(parts),
        abort: () => writer.abort(),
        async finish() {
          await writer.finish();
          events.push(`finished ${name}`);
        },
      };
    },
    async createIfAbsent(name, bytes) {
      const outcome = await store.createIfAbsent(name, bytes);
      events.push(`${outcome} ${name}`);
      return outcome;
    },
    async put(name, bytes) {
      await store.put(name, bytes);
      events.push(`put ${name}`);
    },
  };
}
