// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CODECS } from '../../../src/image/layout.js';
import { openImage } from '../../../src/image/reader.js';
import { makeStore, noise, readImage, writeImage } from './support.js';

const ZEROES = Buffer.alloc(6144);

describe('an image', () => {
  test.each(CODECS)('gives back what was written, with codec %s', async (codec) => {
    const files = new Map<string, Uint8Array>([
      ['empty.img', Buffer.alloc(0)],
      ['core-1.img', Buffer.from('a small one')],
      ['core-2.img', noise(5000, 1)],
      ['pages-1.img', Buffer.concat([noise(3_000_000, 2), Buffer.alloc(2_500_000), noise(700_001, 3)])],
      ['pages-2.img', noise(4096, 4)],
      ['ghost-file-1.img', Buffer.alloc(1_234_567, 'ghost')],
    ]);
    const store = makeStore();
    const { manifest, sealed } = await writeImage(store, files, { codec });
    const found = await readImage(store, manifest);
    expect([...found.keys()]).toEqual([...files.keys()]);
    for (const [name, bytes] of files) expect(found.get(name)?.equals(bytes)).toBe(true);
    expect(sealed.rawBytes).toBe([...files.values()].reduce((sum, bytes) => sum + bytes.length, 0));
  });

  test('has LZ4 frames where memory shrinks, and looks twice after noise', async () => {
    const text = (length: number, seed: number): Buffer =>
      Buffer.concat(
        Array.from({ length: Math.ceil(length / 8192) }, (_, i) => Buffer.concat([noise(2048, seed + i), ZEROES])),
      );
    const memory = Buffer.concat([text(6 << 20, 1), noise(12 << 20, 5000), text(6 << 20, 10_000)]);
    const store = makeStore();
    const { manifest } = await writeImage(store, new Map([['pages-1.img', memory]]), { codec: 'lz4' });
    const image = await openImage({ store, manifest });
    const { chunks } = image.index;
    const used = new Set(Array.from({ length: chunks.length }, (_, chunk) => chunks.codec(chunk)));
    expect([...used].sort()).toEqual(['lz4', 'lz4-frame', 'none']);
    expect((await image.readAll('pages-1.img', 2 ** 30)).equals(memory)).toBe(true);
    image.close();
    expect(manifest.image?.codec).toBe('lz4');
  });

  test('gives back any files, however they arrive', async () => {
    const content = fc.record({
      pages: fc.boolean(),
      length: fc.oneof(fc.nat(300), fc.nat(200_000), fc.nat(3_000_000)),
      seed: fc.nat(1000),
      zeroes: fc.nat(1_500_000),
    });
    const store = makeStore();
    await fc.assert(
      fc.asyncProperty(
        fc.array(content, { maxLength: 12 }),
        fc.constantFrom(...CODECS),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 700, max: 2_000_000 }),
        async (contents, codec, numShards, step) => {
          const files = new Map(
            contents.map(({ pages, length, seed, zeroes }, i) => [
              `${pages ? 'pages' : 'file'}-${i}.img`,
              Buffer.concat([noise(length, seed), pages ? Buffer.alloc(zeroes) : Buffer.alloc(0)]),
            ]),
          );
          const { manifest } = await writeImage(store, files, { codec, numShards, step });
          const found = await readImage(store, manifest);
          expect(found.size).toBe(files.size);
          for (const [name, bytes] of files) expect(found.get(name)?.equals(bytes)).toBe(true);
        },
      ),
      { numRuns: 40 },
    );
  }, 120_000);
});
