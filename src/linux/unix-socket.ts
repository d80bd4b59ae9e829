// SPDX-License-Identifier: Apache-2.0
import { constants, openSync, rmSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { closeFd } from './fds.js';
import { EAGAIN, EINTR, SystemError, addressOf, check, lastErrno, libc } from './libc.js';

export const socket = libc.func('int socket(int domain, int type, int protocol)') as (
  d: number,
  t: number,
  p: number,
) => number;
const bind = libc.func('int bind(int fd, const void *addr, uint len)') as (
  fd: number,
  addr: Uint8Array,
  len: number,
) => number;
const connect = libc.func('int connect(int fd, const void *addr, uint len)') as (
  fd: number,
  addr: Uint8Array,
  len: number,
) => number;
const listen = libc.func('int listen(int fd, int backlog)') as (fd: number, backlog: number) => number;
const accept4 = libc.func('int accept4(int fd, void *addr, void *len, int flags)') as (
  fd: number,
  addr: null,
  len: null,
  flags: number,
) => number;
const recvmsg = libc.func('int64 recvmsg(int fd, void *msg, int flags)') as (
  fd: number,
  msg: Uint8Array,
  flags: number,
) => number;

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SUN_PATH_MAX = 107;

/**
 * Use a socket's path, however long: the kernel takes 107 bytes, and a directory can be named by a descriptor on it.
 * The name is good only while `use` runs.
 */
export function withSocketPath<T>(path: string, use: (path: string) => T): T {
  if (Buffer.byteLength(path) <= SUN_PATH_MAX) return use(path);
  const directory = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return use(`/proc/self/fd/${directory}/${basename(path)}`);
  } finally {
    closeFd(directory);
  }
}

/** Listen on a UNIX stream socket at `path`; replaces what lies there. Non-blocking. */
export function listenUnix(path: string): number {
  rmSync(path, { force: true });
  return withSocketPath(path, bindAndListen);
}

function bindAndListen(path: string): number {
  const name = Buffer.from(path);
  if (name.length > SUN_PATH_MAX) throw new SystemError('bind', 36, path);
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  name.copy(address, 2);
  const fd = check(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 'socket');
  try {
    check(bind(fd, address, address.length), 'bind', path);
    check(listen(fd, 1), 'listen', path);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/** Whether a datagram socket of ours can be connected to this name: a path, or a zero byte and an abstract name. */
export function reachesDatagramSocket(name: Uint8Array): boolean {
  if (name.length > SUN_PATH_MAX) return false;
  const address = Buffer.alloc(2 + name.length);
  address.writeUInt16LE(AF_UNIX, 0);
  address.set(name, 2);
  const fd = check(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  try {
    return connect(fd, address, address.length) === 0;
  } finally {
    closeFd(fd);
  }
}

/** Accept one connection, or `again`. The new descriptor is non-blocking and closed on exec. */
export function acceptUnix(fd: number): number | 'again' {
  const got = accept4(fd, null, null, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (got >= 0) return got;
  const errno = lastErrno();
  if (errno === EAGAIN || errno === EINTR) return 'again';
  throw new SystemError('accept4', errno);
}

export interface Received {
  /** Bytes received; 0 at the end of the stream. */
  readonly length: number;
  /** The descriptor that came along, or -1. */
  readonly fd: number;
}

// Node runs this on one thread only, so one set of structures serves every call.
const iov = Buffer.alloc(16);
const control = Buffer.alloc(64);
const header = Buffer.alloc(56);

/** Receive up to `length` bytes and one descriptor. Never reads past `length`: what follows belongs to the next message. */
export function receive(fd: number, into: Buffer, length: number): Received | 'again' {
  iov.writeBigUInt64LE(addressOf(into), 0);
  iov.writeBigUInt64LE(BigInt(length), 8);
  header.fill(0);
  header.writeBigUInt64LE(addressOf(iov), 16);
  header.writeBigUInt64LE(1n, 24);
  header.writeBigUInt64LE(addressOf(control), 32);
  header.writeBigUInt64LE(BigInt(control.length), 40);
  control.fill(0);
  for (;;) {
    const got = recvmsg(fd, header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got >= 0) {
      const carried = Number(header.readBigUInt64LE(40)) >= 20 ? control.readInt32LE(16) : -1;
      return { length: got, fd: carried };
    }
    const errno = lastErrno();
    if (errno === EAGAIN) return 'again';
    if (errno !== EINTR) throw new SystemError('recvmsg', errno);
  }
}
