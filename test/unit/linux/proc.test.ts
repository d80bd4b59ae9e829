// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import { listProc, readProc, readProcLink } from '../../../src/linux/proc.js';

test('what a process shows is read as it is', () => {
  expect(readProc('/proc/self/comm')).toMatch(/\n$/);
  expect(readProcLink('/proc/self/exe')).toBe(process.execPath);
  expect(listProc('/proc/self/fd')).toEqual(expect.arrayContaining([0, 1, 2]));
});

test('a process that has gone is no error', () => {
  // Above the kernel's largest PID.
  expect(readProc('/proc/4194999/comm')).toBeUndefined();
  expect(readProcLink('/proc/4194999/exe')).toBeUndefined();
  expect(listProc('/proc/4194999/fd')).toEqual([]);
});
