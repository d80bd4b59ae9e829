// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import { FastFreezeError } from '../base/errors.js';

export interface TimeSituation {
  /** Whether the job gets a container of its own. */
  readonly container: boolean;
  /** Whether CRIU may make namespaces by itself. */
  readonly privileged: boolean;
  /** For tests: whether this kernel has time namespaces. */
  readonly kernelHasThem?: boolean;
}

/** Whether this kernel has time namespaces (Linux 5.6, CONFIG_TIME_NS). */
export function hasTimeNamespaces(): boolean {
  return existsSync('/proc/self/ns/time');
}

/**
 * Why the clocks of a restored application would not continue here but jump to the machine's own, as an error to throw or a
 * warning to print; undefined where they continue. CLOCK_REALTIME is the machine's everywhere.
 */
export function timeProblem(situation: TimeSituation): FastFreezeError | undefined {
  if (!(situation.kernelHasThem ?? hasTimeNamespaces())) {
    return problem('this kernel has no time namespaces', 'use Linux 5.6 or later with CONFIG_TIME_NS');
  }
  // CRIU makes one for what it restores where it may; else the container must be in one already.
  if (situation.container || situation.privileged) return undefined;
  return problem(
    'without a container of its own a job of a normal user has the clocks of the container that it is in',
    'leave out --no-container, or run as root',
  );
}

function problem(reason: string, hint: string): FastFreezeError {
  const op = 'let the monotonic and boot clocks continue at a restore';
  return new FastFreezeError({ code: 'host', op, reason, hint });
}
