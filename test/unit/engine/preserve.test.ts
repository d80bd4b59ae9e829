// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import { isPreserved } from '../../../src/engine/preserve.js';

test.each([
  ['/data/a', true],
  ['/data', true],
  ['/data/venv/lib.so', false],
  ['/data/venv', false],
  ['/data/venv2', true],
  // A root of its own, as a file that is open for writing.
  ['/data/venv/log', true],
  ['/elsewhere', false],
  ['/other/x', true],
])('whether %s comes back with the image: %j', (path, expected) => {
  const files = { roots: ['/data', '/data/venv/log', '/other'], except: ['/data/venv'] };
  expect(isPreserved(path, files)).toBe(expected);
});

test('without anything left out, or any files', () => {
  expect(isPreserved('/data/venv/x', { roots: ['/data'] })).toBe(true);
  expect(isPreserved('/data', undefined)).toBe(false);
});
