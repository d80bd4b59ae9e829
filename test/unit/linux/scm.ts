// SPDX-License-Identifier: Apache-2.0
/* The sending half of descriptor passing, which the sources do not need: CRIU sends, we receive. */
import { SystemError, addressOf, check, lastErrno, libc } from '../../../src/linux/libc.js';

const socket = libc.func('int socket(int domain, int type, int protocol)') as (
  d: number,
  t: number,
  p: number,
) => number;
const connect = libc.func('int connect(int fd, const void *addr, uint len)') as (
  fd: number,
  addr: Uint8Array,
  len: number,
) => number;
const socketpair = libc.func('int socketpair(int domain, int type, int protocol, _Out_ int *fds)') as (
  d: number,
  t: number,
  p: number,
  fds: number[],
) => number;
const sendmsg = libc.func('int64 sendmsg(int fd, const void *msg, int flags)') as (
  fd: number,
  msg: Uint8Array,
  flags: number,
) => number;

const AF_UNIX = 1;
const STREAM_NONBLOCKING_CLOEXEC = 1 | 0o4000 | 0o2000000;
const MSG_NOSIGNAL = 0x4000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

/** Two connected stream sockets, non-blocking. */
export function makeSocketPair(): [number, number] {
  const fds = [-1, -1];
  check(socketpair(AF_UNIX, STREAM_NONBLOCKING_CLOEXEC, 0, fds), 'socketpair');
  return [fds[0] ?? -1, fds[1] ?? -1];
}

export function connectUnix(path: string): number {
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(path, 2);
  const fd = check(socket(AF_UNIX, STREAM_NONBLOCKING_CLOEXEC, 0), 'socket');
  check(connect(fd, address, address.length), 'connect', path);
  return fd;
}

/** Send bytes, and with the first of them descriptors. False when there is no room now. */
export function sendWithFds(socketFd: number, bytes: Buffer, fds: readonly number[]): boolean {
  const iov = Buffer.alloc(16);
  iov.writeBigUInt64LE(addressOf(bytes), 0);
  iov.writeBigUInt64LE(BigInt(bytes.length), 8);
  const control = Buffer.alloc(16 + Math.ceil(fds.length / 2) * 8);
  control.writeBigUInt64LE(BigInt(16 + 4 * fds.length), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  fds.forEach((fd, i) => control.writeInt32LE(fd, 16 + 4 * i));
  const header = Buffer.alloc(56);
  header.writeBigUInt64LE(addressOf(iov), 16);
  header.writeBigUInt64LE(1n, 24);
  if (fds.length > 0) {
    header.writeBigUInt64LE(addressOf(control), 32);
    header.writeBigUInt64LE(BigInt(control.length), 40);
  }
  const sent = sendmsg(socketFd, header, MSG_NOSIGNAL);
  if (sent === bytes.length) return true;
  if (sent >= 0) throw new Error('a part was sent');
  const error = new SystemError('sendmsg', lastErrno());
  if (error.code === 'EAGAIN') return false;
  throw error;
}
