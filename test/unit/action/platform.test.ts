// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { platformProblem } from '../../../src/action/platform.js';

describe('where the action runs', () => {
  test('is Linux on x64 with glibc, such as here', () => {
    expect(platformProblem()).toBeUndefined();
  });

  test.each([
    [{ platform: 'linux', arch: 'arm64', hasGlibc: true }, /linux-arm64: only Linux on x64/, 'runs-on: ubuntu-24.04'],
    [{ platform: 'darwin', arch: 'arm64', hasGlibc: false }, /darwin-arm64: only Linux/, 'runs-on: ubuntu-24.04'],
    [{ platform: 'win32', arch: 'x64', hasGlibc: false }, /win32-x64: only Linux/, 'runs-on: ubuntu-24.04'],
    [{ platform: 'linux', arch: 'x64', hasGlibc: false }, /without glibc: .*Alpine has musl/, /Debian or Ubuntu/],
  ])('%j is refused, with what to do', (machine, message, hint) => {
    expect(platformProblem(machine)).toMatchObject({
      message: expect.stringMatching(message),
      hint: expect.stringMatching(hint),
    });
  });
});
