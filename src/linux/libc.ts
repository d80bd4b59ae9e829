// SPDX-License-Identifier: Apache-2.0
import { constants as osConstants } from 'node:os';
import koffi from 'koffi';

/** The C library, loaded once. Every binding in this folder is declared through it. */
export const libc = koffi.load('libc.so.6');

/** A failed system call, in the shape of Node's own: `code` is the name (`EAGAIN`), `syscall` the call. */
export class SystemError extends Error {
  override readonly name = 'SystemError';
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number, subject?: string) {
    const code = errnoName(errno);
    super(`${syscall}: ${code}${subject === undefined ? '' : ` (${subject})`}`);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** errno of the last call on this thread. Read it before anything else runs. */
export function lastErrno(): number {
  return koffi.errno();
}

/** Result of a call that returns -1 on failure, or a SystemError. */
export function check(result: number, syscall: string, subject?: string): number {
  if (result < 0) throw new SystemError(syscall, koffi.errno(), subject);
  return result;
}

/** Address of a buffer's first byte, for structures that hold pointers. The buffer must outlive the call. */
export function addressOf(buffer: Uint8Array): bigint {
  return koffi.address(buffer);
}

export const EAGAIN: number = osConstants.errno.EAGAIN;
export const EINTR: number = osConstants.errno.EINTR;
export const ENOENT: number = osConstants.errno.ENOENT;
export const EBADF: number = osConstants.errno.EBADF;
export const EEXIST: number = osConstants.errno.EEXIST;
export const ENOSYS: number = osConstants.errno.ENOSYS;
export const EPERM: number = osConstants.errno.EPERM;
export const EPIPE: number = osConstants.errno.EPIPE;

// Some numbers have two names: the first is the one that Node and the manual use (EAGAIN, not EWOULDBLOCK).
const names = new Map<number, string>(
  Object.entries(osConstants.errno)
    .reverse()
    .map(([name, value]) => [value, name]),
);

function errnoName(errno: number): string {
  return names.get(errno) ?? `errno ${errno}`;
}
