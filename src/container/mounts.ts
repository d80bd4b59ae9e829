// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { bindMount, mountPrivateDevpts } from '../linux/mount.js';

/** Give the container terminals of its own: CRIU can only bring back those of a devpts that came along. */
export function privateTerminals(): void {
  try {
    mountPrivateDevpts('/dev/pts');
    bindMount('/dev/pts/ptmx', '/dev/ptmx');
  } catch (error) {
    throw new FastFreezeError({
      code: 'host',
      op: 'mount terminals for the container on',
      subject: '/dev/pts',
      reason: error instanceof Error ? error.message : String(error),
      hint: 'run fastfreeze doctor',
      cause: error,
    });
  }
}
