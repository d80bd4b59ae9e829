// SPDX-License-Identifier: Apache-2.0
/* What /proc does not tell on kernels that are older than the one of the tests. */
import { expect, jest, test } from '@jest/globals';
import type * as Proc from '../../../src/linux/proc.js';

const PID = 4194999;
/** A process of Linux 5.10 that has one memfd, mapped shared: its fdinfo has no `ino:`. */
const FILES: Readonly<Record<string, string>> = {
  [`/proc/${PID}/maps`]: '7f2a5c000000-7f2a5c002000 rw-s 00000000 00:01 1056   /memfd:shared (deleted)\n',
  [`/proc/${PID}/fdinfo/3`]: 'pos:\t0\nflags:\t02\nmnt_id:\t17\n',
};
const real = await import('../../../src/linux/proc.js');
const seen: typeof Proc = {
  listProc: (path) => (path === `/proc/${PID}/fd` ? [3] : real.listProc(path)),
  readProc: (path) => FILES[path] ?? real.readProc(path),
  readProcLink: (path) => (path === `/proc/${PID}/fd/3` ? '/memfd:shared (deleted)' : real.readProcLink(path)),
  statSeen: (path) => {
    const info = real.statSeen('/proc/self/exe');
    if (path === `/proc/${PID}/fd/3` && info !== undefined) info.ino = 1056n;
    return info;
  },
};
jest.unstable_mockModule('../../../src/linux/proc.js', () => seen);
const { refuseInexactState } = await import('../../../src/criu/exactness.js');

test('a memfd that is mapped shared and open is refused to a normal user', () => {
  const tree = [{ pid: PID, name: 'old', state: 'T', exitCode: 0 }];
  expect(() => refuseInexactState(tree, false)).toThrow(/two separate objects/);
  expect(() => refuseInexactState(tree, true)).not.toThrow();
});
