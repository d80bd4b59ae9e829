// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { createCipheriv, randomBytes } from 'node:crypto';
import { loadAead } from '../../../src/linux/aead.js';

const bytesOf = (max: number) => fc.uint8Array({ minLength: 0, maxLength: max });
const key = () => fc.uint8Array({ minLength: 32, maxLength: 32 });
const nonce = () => fc.uint8Array({ minLength: 12, maxLength: 12 });

describe('AES-256-GCM', () => {
  test("is what Node's own interface makes, and opens again, for any input", () =>
    fc.assert(
      fc.asyncProperty(key(), nonce(), bytesOf(40), bytesOf(5000), async (key, nonce, associated, plain) => {
        const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(associated);
        const expected = Buffer.concat([cipher.update(plain), cipher.final()]);
        const [bytes, tag] = [Buffer.from(plain), Buffer.alloc(16)];
        await loadAead().seal({ key, nonce, associated }, bytes, tag);
        expect(bytes.equals(expected)).toBe(true);
        expect(tag.equals(cipher.getAuthTag())).toBe(true);
        expect(await loadAead().open({ key, nonce, associated }, bytes, tag)).toBe(true);
        expect(bytes.equals(plain)).toBe(true);
      }),
    ));

  test('any flipped bit, of the bytes, the tag, the nonce or what is associated, is noticed', () =>
    fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 300 }),
        fc.constantFrom('bytes', 'tag', 'nonce', 'associated', 'key'),
        fc.nat(),
        async (plain, which, at) => {
          const one = {
            bytes: Buffer.from(plain),
            tag: Buffer.alloc(16),
            nonce: randomBytes(12),
            associated: randomBytes(32),
            key: randomBytes(32),
          };
          await loadAead().seal(one, one.bytes, one.tag);
          const damaged = one[which];
          const bit = at % (damaged.length * 8);
          damaged.writeUInt8(damaged.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
          expect(await loadAead().open(one, one.bytes, one.tag)).toBe(false);
        },
      ),
    ));

  test('many at once do not disturb each other', async () => {
    const inputs = Array.from({ length: 20 }, (_, i) => ({
      key: randomBytes(32),
      nonce: randomBytes(12),
      associated: randomBytes(8),
      plain: randomBytes(300_000 + i),
    }));
    await Promise.all(
      inputs.map(async ({ plain, ...input }) => {
        const [bytes, tag] = [Buffer.from(plain), Buffer.alloc(16)];
        await loadAead().seal(input, bytes, tag);
        expect(bytes.equals(plain)).toBe(false);
        expect(await loadAead().open(input, bytes, tag)).toBe(true);
        expect(bytes.equals(plain)).toBe(true);
      }),
    );
  });
});
