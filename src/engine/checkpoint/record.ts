// SPDX-License-Identifier: Apache-2.0
import { hasOwnIpc } from '../../criu/ipc.js';
import type { SealedImage } from '../../image/manifest.js';
import type { AppRecord } from '../app-record.js';
import { ASSUMED_PACE, type Pace, inheritedCopyPace, refinePace } from '../pace.js';
import { readCopyPace } from '../spool.js';
import type { CheckpointJob } from './attempt.js';
import type { Dumping, FrozenState } from './frozen-state.js';

/** What the manifest says of the application: all that a restore needs and CRIU's images do not hold. */
export function makeRecord({ attempt, outside, reporter }: Dumping, state: FrozenState, pace: Pace): AppRecord {
  const { job } = attempt;
  const { tree, ipc, openFiles, files, carried } = state;
  return {
    command: job.command,
    pid: job.appPid,
    taken: tree.flatMap((one) => [one.pid, one.pgid, one.sid, ...one.tids]).filter((pid) => pid > 0),
    processes: tree.length,
    residentBytes: reporter.expectedBytes(),
    clocks: state.clocks,
    privileged: job.config.criu.privileged,
    ...(job.config.identity === undefined ? {} : { identity: job.config.identity }),
    streams: state.streams.records,
    affinity: state.affinity,
    ...(hasOwnIpc(job.appPid) ? { ownIpc: true } : {}),
    ...(ipc.removedSegments.length === 0 ? {} : { removedSegments: ipc.removedSegments }),
    appending: openFiles.flatMap(({ isAppended, path, lengthBytes }) => (isAppended ? [{ path, lengthBytes }] : [])),
    reads: state.reads,
    inexact: state.inexact,
    ...(outside.length === 0 ? {} : { outsideSockets: outside.length }),
    ...(files === undefined ? {} : { files }),
    ...(carried === undefined ? {} : { carried }),
    ...(job.config.cpu === undefined ? {} : { cpu: job.config.cpu }),
    pace,
  };
}

/** What this checkpoint, all but committed, adds to what is known of the job's. */
export function measurePace(
  { attempt, reporter }: Dumping,
  { frozenAtMs, capturingMs }: FrozenState,
  image: SealedImage,
): Pace {
  return refinePace(knownPace(attempt.job), {
    residentBytes: reporter.expectedBytes(),
    rawBytes: image.rawBytes,
    storedBytes: image.storedBytes,
    preparingMs: frozenAtMs - attempt.requestedMs,
    capturingMs,
    durableMs: performance.now() - attempt.requestedMs,
  });
}

function knownPace({ config, pace }: CheckpointJob): Pace {
  const { spoolDirectory: spool, imageUrl } = config;
  const inherited = pace?.copying;
  const copying =
    (spool === undefined ? undefined : readCopyPace(spool, imageUrl)) ??
    (inherited === undefined ? undefined : inheritedCopyPace(inherited));
  return { ...(pace ?? ASSUMED_PACE), ...(copying === undefined ? {} : { copying }) };
}
