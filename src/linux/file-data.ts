// SPDX-License-Identifier: Apache-2.0
import { fstatSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { check, lastErrno, libc, SystemError } from './libc.js';

const sysLseek = libc.func('int64 lseek(int fd, int64 offset, int whence)') as (
  fd: number,
  offset: number,
  whence: number,
) => number | bigint;
const sysFallocate = libc.func('int fallocate(int fd, int mode, int64 offset, int64 length)') as (
  fd: number,
  mode: number,
  offset: number,
  length: number,
) => number;
const sysUtimensat = libc.func('int utimensat(int dir, const void *path, const void *times, int flags)') as (
  dir: number,
  path: Uint8Array,
  times: Uint8Array,
  flags: number,
) => number;

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
/** In place of nanoseconds: leave this time as it is. */
const UTIME_OMIT = 0x3ffffffen;

/**
 * Where a file has data at or after `offset`: from, and the hole that ends it. Undefined when only a hole follows. A
 * file system without holes has all of it as data.
 */
export function nextData(fd: number, offset: number): { readonly from: number; readonly to: number } | undefined {
  // There is none behind the end, and what V8 does between a call and the look at errno (compile, collect) may change that.
  if (offset >= fstatSync(fd).size) return undefined;
  const from = Number(sysLseek(fd, offset, SEEK_DATA));
  if (from < 0) {
    const errno = lastErrno();
    if (errno === osConstants.errno.ENXIO) return undefined;
    throw new SystemError('lseek', errno);
  }
  return { from, to: check(Number(sysLseek(fd, from, SEEK_HOLE)), 'lseek') };
}

/** Give back the disk of a part of a file, which reads as zeros then. Throws where the file system cannot. */
export function punchHole(fd: number, offset: number, length: number): void {
  check(sysFallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length), 'fallocate');
}

/** Set when a file, or a link itself, was last changed, to the nanosecond; its time of access stays. */
export function setModifiedTime(path: Buffer, modifiedNs: bigint): void {
  const second = 1_000_000_000n;
  const nanoseconds = ((modifiedNs % second) + second) % second;
  const times = Buffer.alloc(32);
  times.writeBigInt64LE(UTIME_OMIT, 8);
  times.writeBigInt64LE((modifiedNs - nanoseconds) / second, 16);
  times.writeBigInt64LE(nanoseconds, 24);
  const terminated = Buffer.concat([path, Buffer.alloc(1)]);
  check(sysUtimensat(AT_FDCWD, terminated, times, AT_SYMLINK_NOFOLLOW), 'utimensat', path.toString());
}
