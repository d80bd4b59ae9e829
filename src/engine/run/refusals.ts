// SPDX-License-Identifier: Apache-2.0
import { readlinkSync } from 'node:fs';
import { FastFreezeError } from '../../base/errors.js';
import type { Logger } from '../../base/log.js';
import { timeProblem } from '../../container/time.js';
import { isPrivileged } from '../../criu/runtime/privilege.js';
import type { RunOptions } from './options.js';

/** What was asked for cannot be had, and would be missed only when it is needed. */
export function refuseLeaseOptions({ strictLease, forceLease, imageUrl }: RunOptions): void {
  const [option] = [strictLease && '--strict-lease', forceLease && '--force-lease'].filter((one) => one !== false);
  if (option === undefined) return;
  throw new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: `${option} with ${imageUrl}`,
    reason: 'a cache has no leases',
    hint: 'leave it out, or use an --image-url in s3:, gs: or file:',
  });
}

export function refuseBareMachine(): void {
  if (readlinkSync('/proc/self/ns/pid') !== MACHINE_PID_NAMESPACE) return;
  throw new FastFreezeError({
    code: 'host',
    op: 'run without a container',
    reason: "these are the machine's own PIDs, and a restore would take those that others have",
    hint: 'leave out --no-container',
  });
}

/** The first PID namespace has a number that the kernel never gives to another (PROC_PID_INIT_INO). */
const MACHINE_PID_NAMESPACE = 'pid:[4026531836]';

/** Without a container of our own, one must be there: PIDs are chosen, and the machine's are not ours to choose. */
export function lookAtTime(options: RunOptions, log: Logger): void {
  const problem = timeProblem({ container: options.container, privileged: isPrivileged() });
  if (problem === undefined) return;
  if (options.requireTimeVirtualization) throw problem;
  log.warn(`the monotonic and boot clocks of this job will jump at a restore: ${problem.reason}`);
}
