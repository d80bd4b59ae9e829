// SPDX-License-Identifier: Apache-2.0
import { readableBytes, closeFd } from './fds.js';
import { libc } from './libc.js';

const syscall = libc.func('long syscall(long number, long a, long b, long c)') as (
  number: number,
  a: number,
  b: number,
  c: number,
) => number;

const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;

/**
 * How many bytes another process's descriptor has to read, which may be a file that cannot be opened a second time.
 * Undefined where that cannot be told: the process or descriptor has gone, we may not look, or Linux is before 5.6.
 */
export function foreignReadableBytes(pid: number, fd: number): number | undefined {
  const pidFd = syscall(SYS_PIDFD_OPEN, pid, 0, 0);
  if (pidFd < 0) return undefined;
  const copy = syscall(SYS_PIDFD_GETFD, pidFd, fd, 0);
  closeFd(pidFd);
  if (copy < 0) return undefined;
  try {
    return readableBytes(copy);
  } finally {
    closeFd(copy);
  }
}
