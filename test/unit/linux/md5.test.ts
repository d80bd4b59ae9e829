// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { createHash } from 'node:crypto';
import { createMd5 } from '../../../src/linux/md5.js';

function expected(pieces: readonly Uint8Array[]): string {
  return pieces.reduce((hash, piece) => hash.update(piece), createHash('md5')).digest('base64');
}

test('bytes in any pieces have the MD5 of the whole', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 300 })), async (pieces) => {
      const md5 = createMd5();
      for (const piece of pieces) await md5.update(piece);
      expect(md5.digest()).toBe(expected(pieces));
    }),
  );
});

test('several at once do not disturb each other', async () => {
  const inputs = Array.from({ length: 8 }, (_, i) => [Buffer.alloc(1 << 20, i), Buffer.alloc(i * 1000 + 1, 255 - i)]);
  const digests = await Promise.all(
    inputs.map(async (pieces) => {
      const md5 = createMd5();
      for (const piece of pieces) await md5.update(piece);
      return md5.digest();
    }),
  );
  expect(digests).toEqual(inputs.map(expected));
});
