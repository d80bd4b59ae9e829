// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from '@jest/globals';
import {
  compareVersions,
  isTooOld,
  parseCriuVersion,
  upstreamVersion,
  versionWarning,
} from '../../../../src/criu/runtime/version.js';

describe('the version of a CRIU', () => {
  it.each([
    ['Version: 4.2.1\n', '4.2.1'],
    ['Version: 3.17.1\nGitID: v3.17.1\n', '3.17.1'],
    ['Version: v4.2\n', '4.2'],
    ['Warn: something\nVersion: 4.2.1\n', '4.2.1'],
    ['bash: criu: command not found\n', undefined],
    ['', undefined],
  ])('is read from %j', (text, version) => {
    expect(parseCriuVersion(text)).toBe(version);
  });

  it.each([
    ['4.2.1-1', '4.2.1'],
    ['2:6.3.0+dfsg-5+b2', '6.3.0'],
    ['4.1.1-1~bpo12+1', '4.1.1'],
  ])('is the upstream part of %s', (debian, upstream) => {
    expect(upstreamVersion(debian)).toBe(upstream);
  });

  it('is compared by number, not by letter', () => {
    expect(compareVersions('4.10', '4.2.1')).toBeGreaterThan(0);
    expect(compareVersions('4.2', '4.2.0')).toBe(0);
    expect(compareVersions('3.17.1', '4.1.1')).toBeLessThan(0);
  });

  it.each([
    ['3.17.1', true, undefined],
    ['4.1', true, undefined],
    ['4.1.1', false, 'sockets'],
    ['4.2', false, 'sockets'],
    ['4.2.1', false, undefined],
    ['5.0', false, undefined],
  ])('%s is refused: %s, warned of: %s', (version, refused, word) => {
    expect(isTooOld(version)).toBe(refused);
    if (!refused) expect(versionWarning(version)?.includes(word ?? '') ?? false).toBe(word !== undefined);
  });
});
