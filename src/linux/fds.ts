// SPDX-License-Identifier: Apache-2.0
import { readdirSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { EAGAIN, EINTR, ENOSYS, EPERM, EPIPE, SystemError, addressOf, check, lastErrno, libc } from './libc.js';

const pipe2 = libc.func('int pipe2(_Out_ int *fds, int flags)') as (fds: number[], flags: number) => number;
const fcntl = libc.func('int fcntl(int fd, int cmd, int arg)') as (fd: number, cmd: number, arg: number) => number;
const ioctl = libc.func('int ioctl(int fd, unsigned long request, void *arg)') as (
  fd: number,
  request: number,
  arg: Uint8Array,
) => number;
const sysRead = libc.func('int64 read(int fd, void *buf, size_t n)') as (
  fd: number,
  b: Uint8Array,
  n: number,
) => number;
const sysWrite = libc.func('int64 write(int fd, const void *buf, size_t n)') as (
  fd: number,
  b: Uint8Array,
  n: number,
) => number;
const sysClose = libc.func('int close(int fd)') as (fd: number) => number;
const sysTee = libc.func('int64 tee(int in, int out, size_t n, uint flags)') as (
  fdIn: number,
  fdOut: number,
  n: number,
  flags: number,
) => number;
const sysVmsplice = libc.func('int64 vmsplice(int fd, const void *iov, size_t segments, uint flags)') as (
  fd: number,
  iov: Uint8Array,
  segments: number,
  flags: number,
) => number;
const sysEventfd = libc.func('int eventfd(uint initial, int flags)') as (initial: number, flags: number) => number;

const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const F_GETFL = 3;
const F_SETFL = 4;
const F_SETPIPE_SZ = 1031;
const F_GETPIPE_SZ = 1032;
const FIONREAD = 0x541b;
const SPLICE_F_NONBLOCK = 2;

export interface Pipe {
  readonly readFd: number;
  readonly writeFd: number;
}

/** A pipe whose ends are closed on exec. Real pipes, since libuv's own are socket pairs that CRIU takes for strangers. */
export function makePipe(): Pipe {
  const fds = [-1, -1];
  check(pipe2(fds, O_CLOEXEC), 'pipe2');
  const [readFd, writeFd] = fds;
  if (readFd === undefined || writeFd === undefined) throw new SystemError('pipe2', 0);
  return { readFd, writeFd };
}

/** Set O_NONBLOCK on the open file description behind `fd`; whoever shares that description sees it too. */
export function setNonblocking(fd: number): void {
  const flags = check(fcntl(fd, F_GETFL, 0), 'fcntl');
  check(fcntl(fd, F_SETFL, flags | O_NONBLOCK), 'fcntl');
}

/** Ask for a pipe of `sizeBytes`, halving until the kernel grants it. Returns the size in force. */
export function enlargePipe(fd: number, sizeBytes: number): number {
  for (let size = sizeBytes; size > 65536; size = Math.floor(size / 2)) {
    const granted = fcntl(fd, F_SETPIPE_SZ, size);
    if (granted > 0) return granted;
  }
  return check(fcntl(fd, F_GETPIPE_SZ, 0), 'fcntl');
}

/** Bytes that can be read now. */
export function readableBytes(fd: number): number {
  const value = Buffer.alloc(4);
  check(ioctl(fd, FIONREAD, value), 'ioctl FIONREAD');
  return value.readInt32LE(0);
}

/** Read without throwing for the usual outcomes: bytes read, 0 at the end, or `again` when nothing is there. */
export function tryRead(fd: number, into: Uint8Array, length: number): number | 'again' {
  for (;;) {
    const got = sysRead(fd, into, length);
    if (got >= 0) return got;
    const errno = lastErrno();
    if (errno === EAGAIN) return 'again';
    if (errno !== EINTR) throw new SystemError('read', errno);
  }
}

/** Write without throwing for the usual outcomes: bytes taken, `again` when full, `closed` when nobody reads. */
export function tryWrite(fd: number, from: Uint8Array, length: number): number | 'again' | 'closed' {
  for (;;) {
    const put = sysWrite(fd, from, length);
    if (put >= 0) return put;
    const errno = lastErrno();
    if (errno === EAGAIN) return 'again';
    if (errno === EPIPE) return 'closed';
    if (errno !== EINTR) throw new SystemError('write', errno);
  }
}

const IOVEC_BYTES = 16;
/** Pieces of memory that one call lends. */
export const MAX_LENT_SEGMENTS = 8;
const iovec = Buffer.alloc(MAX_LENT_SEGMENTS * IOVEC_BYTES);

/**
 * Put memory itself into a pipe, not a copy of it: whoever reads the pipe copies straight from there. Until all of it
 * has been read (`readableBytes` tells) it must not change and not be freed. Outcomes as of `tryWrite`, and `refused`
 * where a sandbox does not have this call.
 */
export function tryLend(fd: number, from: readonly Uint8Array[]): number | 'again' | 'closed' | 'refused' {
  const segments = Math.min(from.length, MAX_LENT_SEGMENTS);
  for (let i = 0; i < segments; i++) {
    const bytes = from[i];
    if (bytes === undefined) break;
    iovec.writeBigUInt64LE(addressOf(bytes), i * IOVEC_BYTES);
    iovec.writeBigUInt64LE(BigInt(bytes.length), i * IOVEC_BYTES + 8);
  }
  for (;;) {
    const put = sysVmsplice(fd, iovec, segments, SPLICE_F_NONBLOCK);
    if (put >= 0) return put;
    const errno = lastErrno();
    if (errno === EAGAIN) return 'again';
    if (errno === EPIPE) return 'closed';
    if (errno === ENOSYS || errno === EPERM) return 'refused';
    if (errno !== EINTR) throw new SystemError('vmsplice', errno);
  }
}

/** Close, ignoring the result: after close(2) the descriptor is gone whatever it says. */
export function closeFd(fd: number): void {
  sysClose(fd);
}

/** Copy all that a pipe holds without taking it out. */
export function peekPipe(fd: number): Buffer {
  const unread = readableBytes(fd);
  if (unread === 0) return Buffer.alloc(0);
  const copy = makePipe();
  try {
    enlargePipe(copy.writeFd, Math.max(1 << 20, unread));
    setNonblocking(copy.readFd);
    const teed = check(sysTee(fd, copy.writeFd, unread, SPLICE_F_NONBLOCK), 'tee');
    // A user who has used up the memory for pipes gets a small one: a part must not pass for the whole.
    if (teed < unread) throw new SystemError('tee', osConstants.errno.ENOBUFS, 'the pipe for the copy is too small');
    const bytes = Buffer.alloc(teed);
    let filled = 0;
    while (filled < teed) {
      const got = tryRead(copy.readFd, bytes.subarray(filled), teed - filled);
      if (got === 'again' || got === 0) break;
      filled += got;
    }
    return bytes.subarray(0, filled);
  } finally {
    closeFd(copy.readFd);
    closeFd(copy.writeFd);
  }
}

export function makeEventfd(): number {
  return check(sysEventfd(0, O_CLOEXEC | O_NONBLOCK), 'eventfd');
}

export function ioctlBuffer(fd: number, request: number, argument: Uint8Array, name: string): void {
  check(ioctl(fd, request, argument), name);
}

const sysMkfifo = libc.func('int mkfifo(const void *path, uint mode)') as (path: Uint8Array, mode: number) => number;

/** Create a named pipe that only its owner may use. */
export function makeFifo(path: string | Buffer): void {
  const terminated = Buffer.concat([typeof path === 'string' ? Buffer.from(path) : path, Buffer.alloc(1)]);
  check(sysMkfifo(terminated, 0o600), 'mkfifo', path.toString());
}

const F_SETFD = 2;
const FD_CLOEXEC = 1;

/** Keep every descriptor from 3 up from the programs we start: what our caller left open is none of their business. */
export function closeStrangersOnExec(): void {
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    // Failure means that it has been closed since, the directory's own descriptor for one.
    if (fd > 2) fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
}
