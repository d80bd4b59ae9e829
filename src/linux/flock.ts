// SPDX-License-Identifier: Apache-2.0
import { constants, openSync } from 'node:fs';
import { closeFd } from './fds.js';
import { EAGAIN, EINTR, lastErrno, libc } from './libc.js';

const sysFlock = libc.func('int flock(int fd, int operation)') as (fd: number, operation: number) => number;

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** Take the lock on `path` (created when missing); undefined when somebody holds it. Held until every copy is closed. */
export function tryLock(path: string): number | undefined {
  const fd = openSync(path, 'a', 0o600);
  if (sysFlock(fd, LOCK_EX | LOCK_NB) === 0) return fd;
  closeFd(fd);
  return undefined;
}

/** As `tryLockWhereKnown`, on a directory itself: nothing is made in it. */
export function tryLockDirectory(path: string): number | undefined {
  return lockWhereKnown(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY));
}

/** As `tryLockDirectory`; where the file system knows no such locks, as if somebody held it. */
export function tryLockLeftDirectory(path: string): number | undefined {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  if (sysFlock(fd, LOCK_EX | LOCK_NB) === 0) return fd;
  closeFd(fd);
  return undefined;
}

/** As `tryLock`; where the file system knows no such locks (Lustre without its mount option), as if nobody held it. */
export function tryLockWhereKnown(path: string): number | undefined {
  return lockWhereKnown(openSync(path, 'a', 0o600));
}

function lockWhereKnown(fd: number): number | undefined {
  if (sysFlock(fd, LOCK_EX | LOCK_NB) === 0) return fd;
  const errno = lastErrno();
  if (errno !== EAGAIN && errno !== EINTR) return fd;
  closeFd(fd);
  return undefined;
}

/** Whether somebody holds the lock on `path`, which must exist. Others who only ask do not count. */
export function isLocked(path: string): boolean {
  const fd = openSync(path, 'r');
  const locked = sysFlock(fd, LOCK_SH | LOCK_NB) !== 0;
  closeFd(fd);
  return locked;
}
