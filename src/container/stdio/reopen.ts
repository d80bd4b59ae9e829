// SPDX-License-Identifier: Apache-2.0
import { constants, fstatSync, openSync } from 'node:fs';
import { isatty } from 'node:tty';

/**
 * A non-blocking description of our own for a pipe, or for a terminal or other device that we write to; undefined where the
 * kernel does not let us open it again. Whoever shares the descriptor that we were given sees nothing of it.
 */
export function reopenNonblocking(fd: number, access: 'read' | 'write'): number | undefined {
  const stat = fstatSync(fd);
  // Other devices may do something when they are opened, and are not read by two.
  if (!stat.isFIFO() && !(access === 'read' ? isatty(fd) : stat.isCharacterDevice())) return undefined;
  const flag = access === 'read' ? constants.O_RDONLY : constants.O_WRONLY;
  try {
    return openSync(`/proc/self/fd/${fd}`, flag | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    // Somebody else's pipe or terminal: the shared description must do.
    return undefined;
  }
}
