// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FastFreezeError } from '../../../src/base/errors.js';
import { readEntries } from '../../../src/criu/images/entries.js';
import { Message } from '../../../src/criu/images/protobuf.js';
import { type WireField, encodeMessage, imageFile, varint } from './protobuf-writer.js';

const number = fc.integer({ min: 1, max: 40 });
const u64 = fc.oneof(fc.bigInt({ min: 0n, max: 300n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }));
const field: fc.Arbitrary<WireField> = fc.oneof(
  fc.record({ number, varint: u64 }),
  fc.record({ number, fixed64: u64 }),
  fc.record({ number, fixed32: fc.nat(0xffffffff) }),
  fc.record({ number, bytes: fc.uint8Array({ maxLength: 50 }) }),
);

function read<T>(action: () => T): T | 'refused' {
  try {
    return action();
  } catch (error) {
    if (error instanceof FastFreezeError && error.code === 'image') return 'refused';
    throw error;
  }
}

describe('a protobuf message', () => {
  test('gives every field back, among any others', () => {
    fc.assert(
      fc.property(fc.array(field, { maxLength: 20 }), (fields) => {
        const message = new Message(encodeMessage(fields), 'x');
        for (let n = 1; n <= 40; n++) {
          const last = fields.filter((one) => one.number === n).at(-1);
          if (last === undefined) {
            expect([message.big(n), message.bytes(n), message.text(n), message.counts(n)]).toEqual([
              undefined,
              undefined,
              undefined,
              [],
            ]);
          } else if ('bytes' in last) {
            expect(Buffer.from(message.bytes(n) ?? []).equals(Buffer.from(last.bytes))).toBe(true);
            expect(read(() => message.big(n))).toBe('refused');
          } else {
            const value = 'varint' in last ? last.varint : 'fixed64' in last ? last.fixed64 : BigInt(last.fixed32);
            expect(message.big(n)).toBe(value);
            const small = value <= BigInt(Number.MAX_SAFE_INTEGER);
            expect(read(() => message.count(n))).toBe(small ? Number(value) : 'refused');
            expect(read(() => message.bytes(n))).toBe('refused');
          }
        }
      }),
    );
  });

  test('reads repeated numbers, packed or not or both', () => {
    const count = fc.nat(2 ** 31);
    fc.assert(
      fc.property(fc.array(fc.oneof(count, fc.array(count))), (parts) => {
        const fields = parts.map((part) =>
          typeof part === 'number'
            ? { number: 7, varint: BigInt(part) }
            : { number: 7, bytes: Buffer.concat(part.map((one) => varint(BigInt(one)))) },
        );
        expect(new Message(encodeMessage(fields), 'x').counts(7)).toEqual(parts.flat());
      }),
    );
  });

  test('nests', () => {
    fc.assert(
      fc.property(fc.array(fc.array(field, { maxLength: 5 }), { minLength: 1, maxLength: 5 }), (inner) => {
        const fields = inner.map((one) => ({ number: 3, bytes: encodeMessage(one) }));
        const message = new Message(encodeMessage(fields), 'x');
        expect(message.messages(3)).toEqual(inner.map((one) => new Message(encodeMessage(one), 'x')));
        expect(message.message(3)).toEqual(message.messages(3).at(-1));
      }),
    );
  });

  test('of any bytes is read or refused, and nothing else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        read(() => new Message(bytes, 'x').counts(1));
      }),
      { numRuns: 2000 },
    );
  });

  test('that is cut short is refused, or is a whole one of fewer fields', () => {
    fc.assert(
      fc.property(fc.array(field, { minLength: 1, maxLength: 8 }), fc.nat(), (fields, cut) => {
        const whole = encodeMessage(fields);
        const length = cut % whole.length;
        const ends = new Set(fields.map((_, i) => encodeMessage(fields.slice(0, i)).length));
        const found = read(() => new Message(whole.subarray(0, length), 'x'));
        expect(found === 'refused').toBe(!ends.has(length));
      }),
    );
  });

  test.each([
    ['field 0', [0x00, 0x01]],
    ['a group', [0x0b]],
    ['a number that never ends', Array.from({ length: 11 }, () => 0xff)],
    ['a length beyond all memory', [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]],
  ])('with %s is refused', (_, bytes) => {
    expect(read(() => new Message(Uint8Array.from(bytes), 'x'))).toBe('refused');
  });
});

describe('a file of CRIU', () => {
  const MAGIC = 0x50273030;

  test('gives its messages back', () => {
    fc.assert(
      fc.property(fc.array(fc.array(field, { maxLength: 5 }), { maxLength: 5 }), (messages) => {
        const encoded = messages.map(encodeMessage);
        const entries = readEntries(imageFile(MAGIC, encoded), MAGIC, 'x');
        expect(entries).toEqual(encoded.map((one) => new Message(one, 'x')));
      }),
    );
  });

  test('of another kind, or cut anywhere but between messages, is refused', () => {
    const messages = [encodeMessage([{ number: 1, varint: 1000n }]), encodeMessage([{ number: 2, varint: 1n }])];
    const whole = imageFile(MAGIC, messages);
    expect(read(() => readEntries(whole, MAGIC + 1, 'x'))).toBe('refused');
    const ends = [8, imageFile(MAGIC, messages.slice(0, 1)).length, whole.length];
    for (let length = 0; length <= whole.length; length++) {
      const found = read(() => readEntries(whole.subarray(0, length), MAGIC, 'x'));
      expect([length, found === 'refused']).toEqual([length, !ends.includes(length)]);
    }
  });
});
