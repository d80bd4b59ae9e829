// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { findOwnIds, firstSubordinate, noOwnIds } from '../../../src/container/own-ids.js';

describe('the first subordinate id', () => {
  test.each([
    ['ann:100000:65536', 100_000],
    ['1000:5:1', 5],
    ['# a comment\n\nbob:1:2\nann:300000:65536\nann:7:1\n', 300_000],
    ['ann:100000:0\nann:200000:1', 200_000],
    ['', undefined],
    ['anna:100000:65536\nan:1:1', undefined],
    ['10000:1:1', undefined],
    ['ann:100000', undefined],
    ['ann:-1:65536', undefined],
    ['ann:1e5:65536', undefined],
  ])('in %j', (text, first) => {
    expect(firstSubordinate(text, ['1000', 'ann'])).toBe(first);
  });
});

describe('why there are none', () => {
  const failed = 'Command failed: unshare --user';
  test.each([
    ['unshare: failed to execute newuidmap: No such file or directory\n', 'absent', /not installed/, /uidmap/],
    ['unshare: failed to execute newgidmap: Permission denied', 'absent', /not installed/, /uidmap/],
    [
      'newuidmap: uid range [0-1) -> [5-6) not allowed\nmore',
      'refused',
      /used: newuidmap: uid range.*allowed$/,
      /set-uid/,
    ],
    ['they may not enter the working directory, so', 'refused', /may not enter/, /6\.16/],
    ['', 'refused', /used: Command failed/, /set-uid/],
  ])('when unshare says %j', (stderr, state, reason, hint) => {
    const why = noOwnIds({ message: failed, stderr });
    expect(why.state).toBe(state);
    expect(why.reason).toMatch(reason);
    expect(why.hint).toMatch(hint);
  });

  test('on this machine is said, or they are usable', async () => {
    const found = await findOwnIds();
    if (found.state === 'usable') expect(found).toMatchObject({ uid: process.getuid?.(), gid: process.getgid?.() });
    else expect(found.hint).not.toBe('');
  });
});
