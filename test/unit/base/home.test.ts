// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import { homedir } from 'node:os';
import { homeDirectory } from '../../../src/base/home.js';

// Without either: test/integration/package.test.ts, as a user that no database knows.
test('HOME names it; unset or empty, the user database does', () => {
  expect(homeDirectory({ HOME: '/a b' })).toBe('/a b');
  expect(homeDirectory({ HOME: '' })).toBe(homedir());
  expect(homeDirectory({})).toBe(homedir());
});
