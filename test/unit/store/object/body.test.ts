// SPDX-License-Identifier: Apache-2.0
import { PassThrough, Readable } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fillFromStream, parseContentRange } from '../../../../src/store/object/body.js';
import { expectCode } from '../conformance.js';

const LONG_MS = 60_000;

describe('the body of an answer', () => {
  test('fills memory, in whatever pieces it comes', () => {
    const pieces = fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 10 });
    return fc.assert(
      fc.asyncProperty(pieces, fc.nat(10), fc.boolean(), async (parts, spare, announced) => {
        const bytes = Buffer.concat(parts);
        const into = Buffer.alloc(bytes.length + spare, 0xee);
        const body = Readable.from(parts.map((part) => Buffer.from(part)));
        const got = await fillFromStream(body, announced ? bytes.length : undefined, into, LONG_MS);
        expect(got).toBe(bytes.length);
        expect(into.subarray(0, got).equals(bytes)).toBe(true);
        expect(into.subarray(got).every((byte) => byte === 0xee)).toBe(true);
      }),
    );
  });

  test.each([
    ['ends early', Readable.from([Buffer.alloc(3)]), 10, 'the answer ended early'],
    ['ends at once', Readable.from([]), 10, 'the answer ended early'],
    ['announces too much', Readable.from([Buffer.alloc(30)]), 30, 'more than was asked for'],
    ['is longer than announced', Readable.from([Buffer.alloc(8), Buffer.alloc(8)]), 10, 'more than was asked for'],
    ['is longer, unannounced', Readable.from([Buffer.alloc(30)]), undefined, 'more than was asked for'],
    ['is none', undefined, 10, 'no body'],
    ['stalls', new PassThrough(), 10, 'nothing came for'],
  ])('one that %s is a passing error', async (_, body, announcedBytes, reason) => {
    const error = await expectCode('store', fillFromStream(body, announcedBytes, Buffer.alloc(10), 20), reason);
    expect(error.passing).toBe(true);
    if (body instanceof Readable) expect(body.destroyed).toBe(true);
  });

  test.each([
    ['bytes 5-9/10', { start: 5, totalBytes: 10 }],
    ['bytes 0-0/*', { start: 0, totalBytes: undefined }],
    ['bytes */10', undefined],
    ['lines 1-2/3', undefined],
    [undefined, undefined],
  ])('the range %j is understood', (header, range) => {
    expect(parseContentRange(header)).toEqual(range);
  });
});
