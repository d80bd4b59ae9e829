// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import { ownIdsForRestore } from '../../../src/engine/identity.js';

const mine = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

test('an image of uid 0 needs none', async () => {
  expect(await ownIdsForRestore(undefined, true)).toBeUndefined();
});

test.each([
  ['uid', { ...mine, uid: mine.uid + 1 }],
  ['gid', { ...mine, gid: mine.gid + 1 }],
])('an image of another %s is refused, with the one to take', async (_, wanted) => {
  await expect(ownIdsForRestore(wanted, true)).rejects.toMatchObject({
    code: 'image',
    subject: `as uid ${wanted.uid}, gid ${wanted.gid}`,
    reason: `this is uid ${mine.uid}, gid ${mine.gid}`,
    hint: `run as the user with uid ${wanted.uid} and gid ${wanted.gid}`,
  });
});

test('without a container of ours there are none to give', async () => {
  await expect(ownIdsForRestore(mine, false)).rejects.toMatchObject({
    code: 'host',
    hint: 'leave out --no-container',
  });
});
