// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { MAGIC, readEntries } from '../../../src/criu/images/entries.js';
import { remapListeners } from '../../../src/criu/images/listeners.js';
import { rewriteMessage } from '../../../src/criu/images/protobuf.js';
import { encodeMessage, imageFile, message, varint } from './protobuf-writer.js';

const [TCP, UDP, LISTEN, ESTABLISHED] = [6, 17, 10, 1];

const socket = (protocol: number, state: number, port: number): Buffer =>
  message({ 1: 7, 3: 2, 4: 1, 5: protocol, 6: state, 7: port, 8: 0, 9: 2, 10: 16, 11: [0x0100007f], 13: 'owner' });
const file = (id: number, inet: Buffer): Buffer => message({ 1: 4, 2: id, 4: inet });

describe('other ports for listeners', () => {
  const regular = message({ 1: 1, 2: 9, 3: message({ 1: 9, 6: '/a/file', 7: 80 }) });
  const bytes = imageFile(MAGIC.files, [
    regular,
    file(1, socket(TCP, LISTEN, 80)),
    file(2, socket(TCP, ESTABLISHED, 80)),
    file(3, socket(UDP, LISTEN, 80)),
    file(4, socket(TCP, LISTEN, 81)),
  ]);

  test('are written where a TCP socket listens, and nowhere else', () => {
    const { bytes: changed, found } = remapListeners(
      bytes,
      new Map([
        [80, 40_000],
        [99, 1],
      ]),
    );
    expect([...found]).toEqual([80]);
    const expected = [
      regular,
      file(1, socket(TCP, LISTEN, 40_000)),
      file(2, socket(TCP, ESTABLISHED, 80)),
      file(3, socket(UDP, LISTEN, 80)),
      file(4, socket(TCP, LISTEN, 81)),
    ];
    expect(changed.equals(imageFile(MAGIC.files, expected))).toBe(true);
  });

  test('may be exchanged', () => {
    const { bytes: changed } = remapListeners(
      bytes,
      new Map([
        [80, 81],
        [81, 80],
      ]),
    );
    const ports = readEntries(changed, MAGIC.files, 'x').map((entry) => entry.message(4)?.count(7));
    expect(ports).toEqual([undefined, 81, 80, 80, 80]);
  });

  test('are not sought in what is no such file', () => {
    expect(() => remapListeners(Buffer.from('nonsense'), new Map([[1, 2]]))).toThrow(/does not begin/);
  });
});

test('a message that is rewritten without a change is the same, byte for byte', () => {
  const field = fc.oneof(
    fc.record({ number: fc.integer({ min: 1, max: 5000 }), varint: fc.bigInt(0n, 2n ** 64n - 1n) }),
    fc.record({ number: fc.integer({ min: 1, max: 5000 }), bytes: fc.uint8Array({ maxLength: 300 }) }),
    fc.record({ number: fc.integer({ min: 1, max: 5000 }), fixed64: fc.bigInt(0n, 2n ** 64n - 1n) }),
    fc.record({ number: fc.integer({ min: 1, max: 5000 }), fixed32: fc.nat(2 ** 31) }),
  );
  fc.assert(
    fc.property(fc.array(field, { maxLength: 8 }), fc.bigInt(0n, 2n ** 64n - 1n), (fields, other) => {
      const bytes = encodeMessage(fields);
      expect(rewriteMessage(bytes, 'x', (_, value) => value).equals(bytes)).toBe(true);
      const changed = rewriteMessage(bytes, 'x', (_, value) => (typeof value === 'bigint' ? other : value));
      const expected = fields.map((one) => ('varint' in one ? { ...one, varint: other } : one));
      expect(changed.equals(encodeMessage(expected))).toBe(true);
    }),
  );
  expect(varint(300n)).toHaveLength(2);
});
