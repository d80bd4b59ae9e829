// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from '@jest/globals';
import { aptFailure } from '../../../../src/criu/runtime/apt-failure.js';

const WHERE = { mirror: 'http://mirror.example/debian', suite: 'sid' };

describe('aptFailure', () => {
  it.each([
    ['E: Write error - write (28: No space left on device)', 'machine', 'the disk is full'],
    ["E: You don't have enough free space in /x/.", 'machine', 'the disk is full'],
    ["W: Temporary failure resolving 'mirror.example'\nE: Some index files failed", 'mirror', 'cannot be reached'],
    ['E: Could not connect to 127.0.0.1:9. - connect (111: Connection refused)', 'mirror', 'cannot be reached'],
    ['W: GPG error: sid InRelease: NO_PUBKEY 6ED0E7B82643E131\nE: is not signed.', 'suite', 'signature'],
    ["E: The repository 'http://x sid Release' does not have a Release file.", 'suite', 'does not carry this suite'],
    ['E: Failed to fetch http://x/InRelease  404  Not Found [IP: 1 80]', 'suite', 'does not carry this suite'],
    ['E: Release file for http://x/InRelease is expired (invalid since 3d).', 'suite', 'out of date'],
    ['E: something new', 'suite', 'something new'],
  ])('understands %j', (stderr, scope, reason) => {
    const result = { ok: false, exitCode: 100, stdout: '', stderr, timedOut: false, missing: false, aborted: false };
    const failure = aptFailure('fetch the package lists of', WHERE, result);
    expect(failure.scope).toBe(scope);
    expect(failure.reason).toContain(reason);
    expect(failure.hint).toBeDefined();
  });

  it('says that a machine without apt is not Debian', () => {
    const result = {
      ok: false,
      exitCode: null,
      stdout: '',
      stderr: '',
      timedOut: false,
      missing: true,
      aborted: false,
    };
    expect(aptFailure('x', WHERE, result).reason).toContain('not Debian');
  });
});
