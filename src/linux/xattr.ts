// SPDX-License-Identifier: Apache-2.0
import { constants as osConstants } from 'node:os';
import { SystemError, lastErrno, libc } from './libc.js';

const sysList = libc.func('int64 llistxattr(const void *path, void *list, size_t n)') as (
  path: Uint8Array,
  list: Uint8Array,
  n: number,
) => number;
const sysGet = libc.func('int64 lgetxattr(const void *path, const void *name, void *value, size_t n)') as (
  path: Uint8Array,
  name: Uint8Array,
  value: Uint8Array,
  n: number,
) => number;
const sysSet = libc.func(
  'int lsetxattr(const void *path, const void *name, const void *value, size_t n, int flags)',
) as (path: Uint8Array, name: Uint8Array, value: Uint8Array, n: number, flags: number) => number;

const sysRemove = libc.func('int lremovexattr(const void *path, const void *name)') as (
  path: Uint8Array,
  name: Uint8Array,
) => number;

const { ENODATA, ENOENT, EOPNOTSUPP, ENOTSUP, ERANGE } = osConstants.errno;
/** The kernel's limit of a list and of a value. */
const MAX_BYTES = 65536;

/** Extended attributes of a file or a link itself, by name, one character a byte; none where the file system has no such thing. */
export function readXattrs(path: Buffer): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  const terminated = cString(path);
  const list = read((into) => sysList(terminated, into, into.length), 'llistxattr', path);
  for (const name of list.toString('latin1').split('\0')) {
    if (name === '') continue;
    const value = read((into) => sysGet(terminated, nameBytes(name), into, into.length), 'lgetxattr', path, true);
    found.set(name, value);
  }
  return found;
}

/** Throws a SystemError, `EPERM` or `EOPNOTSUPP` where the attribute cannot be had here. */
export function writeXattr(path: Buffer, name: string, value: Buffer): void {
  const result = sysSet(cString(path), nameBytes(name), value.length === 0 ? Buffer.alloc(1) : value, value.length, 0);
  if (result < 0) throw new SystemError('lsetxattr', lastErrno(), `${name} of ${path.toString()}`);
}

/** Throws likewise; an attribute that is not there is removed already. */
export function removeXattr(path: Buffer, name: string): void {
  if (sysRemove(cString(path), nameBytes(name)) >= 0) return;
  const errno = lastErrno();
  if (errno !== ENODATA) throw new SystemError('lremovexattr', errno, `${name} of ${path.toString()}`);
}

function read(call: (into: Buffer) => number, name: string, path: Buffer, tolerant = false): Buffer {
  for (let size = FIRST_BYTES; ; size = MAX_BYTES) {
    const into = Buffer.allocUnsafe(size);
    const got = call(into);
    if (got >= 0) return Buffer.from(into.subarray(0, got));
    const errno = lastErrno();
    if (errno === ERANGE && size < MAX_BYTES) continue;
    if (errno === EOPNOTSUPP || errno === ENOTSUP) return Buffer.alloc(0);
    // An attribute may go between the list and the look at it.
    if (tolerant && (errno === ENODATA || errno === ENOENT)) return Buffer.alloc(0);
    throw new SystemError(name, errno, path.toString());
  }
}

/** Most files have none, or a short one. */
const FIRST_BYTES = 512;

/** Names are bytes, here one character each. */
function nameBytes(name: string): Buffer {
  return cString(Buffer.from(name, 'latin1'));
}

function cString(path: Buffer): Buffer {
  return Buffer.concat([path, Buffer.alloc(1)]);
}
