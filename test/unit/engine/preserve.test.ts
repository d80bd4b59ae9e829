// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import { isPreserved } from '../../../src/engine/preserve.js';

test.each([
  ['/work/a', true],
  ['/work', true],
  ['/work/venv/lib.so', false],
  ['/work/venv', false],
  ['/work/venv2', true],
  // A root of its own, as a file that is open for writing.
  ['/work/venv/log', true],
  ['/elsewhere', false],
  ['/other/x', true],
])('whether %s comes back with the image: %j', (path, expected) => {
  const files = { roots: ['/work', '/work/venv/log', '/other'], except: ['/work/venv'] };
  expect(isPreserved(path, files)).toBe(expected);
});

test('without anything left out, or any files', () => {
  expect(isPreserved('/work/venv/x', { roots: ['/work'] })).toBe(true);
  expect(isPreserved('/work', undefined)).toBe(false);
});
