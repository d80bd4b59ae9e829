// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { deadlySignal } from '../../../src/engine/finished.js';

describe('what a job died of', () => {
  test.each([
    ['a signal of its own', { code: null, signal: 13 }, 13],
    ['what a script ran was killed', { code: 137, signal: null }, 9],
    ['what a script ran crashed', { code: 139, signal: null }, 11],
    ['what a script ran was told to end', { code: 143, signal: null }, 15],
    ['the first of a pipe, whose second needed no more', { code: 141, signal: null }, null],
    ['an option that git does not have', { code: 129, signal: null }, null],
    ['a failure', { code: 1, signal: null }, null],
    ['no number of a signal', { code: 255, signal: null }, null],
    ['nothing', { code: 0, signal: null }, null],
  ])('of a script: %s', (_, status, signal) => {
    expect(deadlySignal(status, { shellExitCodes: true })).toBe(signal);
  });

  test('is only a signal where no shell stands between', () => {
    expect(deadlySignal({ code: 137, signal: null }, {})).toBeNull();
    expect(deadlySignal({ code: null, signal: 9 }, {})).toBe(9);
  });
});
