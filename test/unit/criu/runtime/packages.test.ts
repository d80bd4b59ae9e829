// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from '@jest/globals';
import { FastFreezeError } from '../../../../src/base/errors.js';
import type { PackageSet } from '../../../../src/criu/runtime/packages.js';
import { compareWithTested, packageSetId, readTestedSet } from '../../../../src/criu/runtime/packages.js';

const set = (...packages: [string, string, string][]): PackageSet => ({
  format: 1,
  criuVersion: '4.2.1',
  suite: 'sid',
  architecture: 'amd64',
  packages: packages.map(([name, version, sha256]) => ({ name, version, sha256 })),
});

describe('the tested set of packages', () => {
  it('is committed, and holds CRIU and the codecs', async () => {
    const tested = await readTestedSet();
    const names = tested?.packages.map((one) => one.name);
    expect(names).toEqual(
      expect.arrayContaining(['criu', 'libc6', 'liblz4-1', 'libzstd1', 'libxxhash0', 'base-files']),
    );
    for (const one of tested?.packages ?? []) expect(one.sha256).toMatch(/^[0-9a-f]{64}$/);
  });

  it('is recognised', () => {
    expect(compareWithTested(set(['a', '1', 'x']), set(['a', '1', 'x'], ['b', '1', 'y']))).toEqual({ tested: true });
  });

  it('differs by version, or by a package more', () => {
    const found = set(['a', '2', 'x'], ['c', '1', 'z']);
    expect(compareWithTested(found, set(['a', '1', 'y']))).toEqual({ tested: false, differences: ['a 2', 'c 1'] });
  });

  it('refuses the same version with other bytes', () => {
    expect(() => compareWithTested(set(['a', '1', 'x']), set(['a', '1', 'y']))).toThrow(FastFreezeError);
  });
});

describe('packageSetId', () => {
  it('depends on the bytes, not on the order', () => {
    const one = packageSetId(set(['a', '1', 'x'], ['b', '1', 'y']));
    expect(packageSetId(set(['b', '1', 'y'], ['a', '1', 'x']))).toBe(one);
    expect(packageSetId(set(['a', '1', 'x'], ['b', '1', 'z']))).not.toBe(one);
    expect(one).toMatch(/^4\.2\.1-[0-9a-f]{10}$/);
  });
});
