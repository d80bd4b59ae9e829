// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { MAGIC } from '../../../src/criu/images/entries.js';
import { inspect } from '../../../src/engine/inspect.js';
import { commitManifest } from '../../../src/image/generations.js';
import { buildManifest } from '../../../src/image/manifest.js';
import type { Store } from '../../../src/store/store.js';
import { imageFile, message } from '../criu/protobuf-writer.js';
import { makeStore, noise, writeImage } from '../image/support.js';
import { expectCode } from '../store/conformance.js';

const PAGES_BYTES = 5 << 20;

const FILES = new Map<string, Buffer>([
  ['pages-1.img', noise(PAGES_BYTES, 1)],
  ['pstree.img', imageFile(MAGIC.pstree, [message({ 1: 1000, 2: 0, 3: 1000, 4: 1000, 5: [1000] })])],
  ['files.img', imageFile(MAGIC.files, [])],
  ['core-1000.img', imageFile(MAGIC.core, [message({ 3: message({ 1: 1, 6: 'app' }), 4: message({ 2: 1 }) })])],
  ['mm-1000.img', imageFile(MAGIC.mm, [message({ 12: 1 })])],
  ['fdinfo-1.img', imageFile(MAGIC.fdinfo, [])],
]);

/** Counts the bytes that are read. */
function counting(store: Store): { readonly store: Store; readonly bytes: () => number } {
  let total = 0;
  const openReader: Store['openReader'] = async (name) => {
    const reader = await store.openReader(name);
    return {
      sizeBytes: reader.sizeBytes,
      read: (offset, into) => {
        total += into.length;
        return reader.read(offset, into);
      },
      close: () => reader.close(),
    };
  };
  const read: Store['read'] = async (name, offset, into) => {
    total += into.length;
    await store.read(name, offset, into);
  };
  return { store: { ...store, openReader, read }, bytes: () => total };
}

describe('inspecting', () => {
  test('reads no pages, and shows what it can when the engine’s record cannot be read', async () => {
    const plain = makeStore();
    const { manifest } = await writeImage(plain, FILES, { codec: 'none' });
    await commitManifest(plain, manifest);
    const { store, bytes } = counting(plain);
    const found = await inspect(store, 'newest');
    expect(found).toMatchObject({
      imageUrl: plain.url,
      generation: 1,
      state: 'checkpoint',
      writer: { host: 'here' },
      finished: null,
      app: null,
      image: { codec: 'none', files: FILES.size, pageBytes: PAGES_BYTES, compressionRatio: 1 },
      processes: [{ pid: 1000, name: 'app', state: 'alive', files: [] }],
    });
    expect(found.notes).toEqual([expect.stringMatching(/^app\./)]);
    // The last bytes of the pages share a chunk with the small files.
    expect(bytes()).toBeLessThan(PAGES_BYTES / 4);
  });

  test('of an image without CRIU’s files says what is missing', async () => {
    const store = makeStore();
    await commitManifest(store, (await writeImage(store, new Map([['x.img', noise(10, 1)]]))).manifest);
    const { processes, notes } = await inspect(store, 1);
    expect(processes).toEqual([]);
    expect(notes.join('\n')).toMatch(/pstree\.img: the image has none/);
  });

  test('of a finished job has its end, and of none at all is an error', async () => {
    const store = makeStore();
    await expectCode('not-found', inspect(store, 'newest'), store.url);
    const writer = { version: '0.1.0', host: 'here', kernel: '6.1', criu: '4.2' };
    const finished = { exitCode: null, signal: 'SIGTERM' };
    const createdAt = '2026-01-03T00:00:00.000Z';
    await commitManifest(store, buildManifest({ generation: 1, state: 'finished', createdAt, writer, finished }));
    expect(await inspect(store, 1)).toMatchObject({ state: 'finished', finished, image: null, processes: [] });
    await expectCode('not-found', inspect(store, 2));
  });
});
