// SPDX-License-Identifier: Apache-2.0
import { copyFileSync, readFileSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FastFreezeError } from '../../../src/base/errors.js';
import { commitManifest, readManifest } from '../../../src/image/generations.js';
import { CODECS, type Codec } from '../../../src/image/layout.js';
import { HINT_NAME } from '../../../src/image/names.js';
import { openImage } from '../../../src/image/reader.js';
import { openStore } from '../../../src/store/store.js';
import { makeDirectory, makeStore, noise, readImage, writeImage } from './support.js';

const files = new Map<string, Uint8Array>([
  ['core-1.img', Buffer.from('registers '.repeat(20))],
  ['mm-1.img', noise(3000, 7)],
  ['pages-1.img', Buffer.concat([noise(150_000, 1), Buffer.alloc(150_000, 'text ')])],
  ['pages-2.img', Buffer.alloc(90_000, 'x')],
]);

test('the check of what nobody has read tells how far it is, for a watch over restores that stand still', async () => {
  const store = makeStore();
  const { manifest } = await writeImage(store, new Map([...files, ['large', noise(5_000_000, 3)]]));
  const image = await openImage({ store, manifest });
  const { chunks } = image.index;
  const rawBytes = Array.from({ length: chunks.length }, (_, chunk) => chunks.rawBytes(chunk));
  const total = rawBytes.reduce((sum, bytes) => sum + bytes, 0);
  try {
    await image.readAt('large', 2_500_000, 1);
    const told: number[] = [];
    await image.verifyRest((bytes) => told.push(bytes));
    expect(told).toEqual([...told].sort((one, other) => one - other));
    expect(told).toHaveLength(chunks.length - 1);
    expect(rawBytes).toContain(total - (told.at(-1) ?? 0));
    await image.verifyRest((bytes) => told.push(bytes));
    expect(told).toHaveLength(chunks.length - 1);
  } finally {
    image.close();
  }
});

describe.each(CODECS)('an image with codec %s', (codec: Codec) => {
  let good: string;
  let objects: string[];
  beforeAll(async () => {
    const store = makeStore();
    const { manifest } = await writeImage(store, files, { codec });
    expect(await commitManifest(store, manifest)).toBe('created');
    good = store.directory;
    objects = readdirSync(good).filter((name) => name !== HINT_NAME);
    expect(objects.length).toBeGreaterThanOrEqual(3);
  });

  const copyOf = (): string => {
    const directory = makeDirectory();
    for (const name of readdirSync(good)) copyFileSync(join(good, name), join(directory, name));
    return directory;
  };

  /** Everything a restore reads; right bytes, or an error that names the object. */
  const restore = async (directory: string): Promise<FastFreezeError | undefined> => {
    const store = openStore(directory);
    try {
      const found = await readImage(store, await readManifest(store, 'newest'));
      for (const [name, bytes] of files) expect(found.get(name)?.equals(bytes)).toBe(true);
      return undefined;
    } catch (error) {
      if (error instanceof FastFreezeError) return error;
      throw error;
    }
  };

  const expectRefusal = (error: FastFreezeError | undefined, object: string): void => {
    expect(error?.code).toBe('image');
    expect(error?.message).toContain(object);
  };

  test('of which little is read is still checked to the last byte', async () => {
    const check = async (directory: string): Promise<unknown> => {
      const store = openStore(directory);
      const image = await openImage({ store, manifest: await readManifest(store, 'newest') });
      try {
        await image.readAll('core-1.img', 1 << 20);
        await image.verifyRest();
        return undefined;
      } catch (error) {
        return error;
      } finally {
        image.close();
      }
    };
    expect(await check(good)).toBeUndefined();
    for (const name of objects.filter((object) => object.endsWith('.ffs'))) {
      const size = statSync(join(good, name)).size;
      for (let at = 0; at < size; at += Math.ceil(size / 40)) {
        const directory = copyOf();
        const bytes = readFileSync(join(directory, name));
        bytes[at] = (bytes[at] ?? 0) ^ 4;
        writeFileSync(join(directory, name), bytes);
        expect(await check(directory)).toMatchObject({ code: 'image', subject: name });
        rmSync(directory, { recursive: true });
      }
    }
  }, 60_000);

  test('restores as it is, with or without the hint', async () => {
    const directory = copyOf();
    expect(await restore(directory)).toBeUndefined();
    writeFileSync(join(directory, HINT_NAME), 'nonsense');
    expect(await restore(directory)).toBeUndefined();
    rmSync(join(directory, HINT_NAME));
    expect(await restore(directory)).toBeUndefined();
  });

  test('is refused with any byte flipped, and the object is named', async () => {
    const directory = copyOf();
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        fc.integer({ min: 1, max: 255 }),
        async (pick, where, mask) => {
          const name = objects[pick % objects.length] ?? '';
          const path = join(directory, name);
          const original = readFileSync(path);
          const damaged = Buffer.from(original);
          const at = Math.floor(where * damaged.length);
          damaged[at] = (damaged[at] ?? 0) ^ mask;
          writeFileSync(path, damaged);
          try {
            expectRefusal(await restore(directory), name);
          } finally {
            writeFileSync(path, original);
          }
        },
      ),
      { numRuns: 250 },
    );
    expect(await restore(directory)).toBeUndefined();
  }, 60_000);

  test('is refused with any object cut, longer or missing, and the object is named', async () => {
    for (const name of objects) {
      const { size } = statSync(join(good, name));
      for (const length of [0, 1, Math.floor(size / 2), size - 1, size + 1]) {
        const directory = copyOf();
        truncateSync(join(directory, name), length);
        expectRefusal(await restore(directory), name);
      }
      const directory = copyOf();
      rmSync(join(directory, name));
      const error = await restore(directory);
      if (name.startsWith('manifest-')) expect(error?.code).toBe('not-found');
      else expectRefusal(error, name);
    }
  });

  test('is refused with another image’s objects under its names', async () => {
    const other = makeStore();
    const otherFiles = new Map([...files].map(([name, bytes]) => [name, Buffer.from(bytes).reverse()]));
    const written = await writeImage(other, otherFiles, { codec });
    const shards = (directory: string): string[] => readdirSync(directory).filter((name) => name.endsWith('.ffs'));
    for (const name of shards(good)) {
      const directory = copyOf();
      for (const foreign of shards(other.directory)) {
        copyFileSync(join(other.directory, foreign), join(directory, name));
        truncateSync(join(directory, name), statSync(join(good, name)).size);
        expectRefusal(await restore(directory), name);
      }
    }
    const directory = copyOf();
    const index = objects.find((name) => name.endsWith('.ffi')) ?? '';
    copyFileSync(join(other.directory, written.sealed.index.name), join(directory, index));
    expectRefusal(await restore(directory), index);
  });
});
