// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FastFreezeError } from '../../../src/base/errors.js';
import { formatFileUrl, parseFileUrl } from '../../../src/store/file-url.js';
import { openStore } from '../../../src/store/store.js';

describe('a file URL', () => {
  test.each([
    ['/a/b', '/a/b'],
    ['/a b/ü', '/a b/ü'],
    ['/a%20b', '/a%20b'],
    ['/a//b/./c/../d/', '/a/b/d'],
    ['/', '/'],
    ['file:/a/b', '/a/b'],
    ['file:///a/b', '/a/b'],
    ['file://localhost/a/b', '/a/b'],
    ['file:/a%20b/%C3%BC', '/a b/ü'],
    ['file:/a b/ü', '/a b/ü'],
    ['file:/100%25', '/100%'],
    ['file:/what?#x', '/what?#x'],
    ['FILE:/a', '/a'],
  ])('%s is %s', (url, path) => expect(parseFileUrl(url)).toBe(path));

  test.each([
    ['file:a/b', 'not absolute'],
    ['file:', 'not absolute'],
    ['file://', 'not absolute'],
    ['file://host/a', 'another machine'],
    ['file:/a%zz', 'percent escape'],
    ['file:/a%00', 'NUL'],
    ['a/b', 'absolute path'],
    ['./a', 'absolute path'],
    ['', 'absolute path'],
    ['s3://bucket', 'a path of its own'],
    ['gs://bucket', 'a path of its own'],
    ['http://host/a', 'not a kind of store'],
  ])('%j is refused: %s', (url, reason) => {
    const open = (): unknown => openStore(url);
    expect(open).toThrow(FastFreezeError);
    expect(open).toThrow(reason);
  });

  test('of any path leads back to it', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: 'grapheme', minLength: 1 }).filter(isPlain)), (parts) => {
        const path = `/${parts.join('/')}`;
        expect(parseFileUrl(formatFileUrl(path))).toBe(path);
        expect(openStore(openStore(path).url).url).toBe(formatFileUrl(path));
      }),
    );
  });
});

function isPlain(part: string): boolean {
  return !/[/\0]/.test(part) && part !== '.' && part !== '..';
}
