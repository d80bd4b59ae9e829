// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import type { DumpProcess } from '../../criu/dump.js';
import { findCause } from '../../criu/log-causes.js';
import { keepLog } from '../criu-log.js';
import type { CheckpointJob } from './attempt.js';

/** Wait for a step of the dump; CRIU's end before it is CRIU's failure, and its log says why. */
export async function unlessEnded(job: CheckpointJob, dump: DumpProcess, step: Promise<unknown>): Promise<void> {
  const ended = Symbol('ended');
  const first = await Promise.race([step, dump.exited.then(() => ended)]);
  if (first === ended) throw dumpFailure(job, dump, await dump.exited);
}

function dumpFailure(job: CheckpointJob, dump: DumpProcess, code: number): FastFreezeError {
  const cause = findCause(dump.logPath);
  const kept = keepLog(job, dump.logPath);
  return new FastFreezeError({
    code: 'criu',
    op: 'freeze the application',
    reason: cause?.reason ?? `CRIU ended with exit code ${code} and no word why`,
    hint: `${cause?.hint === undefined ? '' : `${cause.hint}; `}CRIU's log is ${kept ?? 'lost'}`,
    passing: cause?.passing ?? false,
  });
}
