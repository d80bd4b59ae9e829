// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import { type OutsideSocket, findOutsideSockets, socketsOf } from '../../container/outside-sockets.js';
import { type TreeProcess, readTree, residentBytes } from '../../container/tree.js';
import type { Allowance } from '../../criu/exactness.js';
import { hasOwnIpc } from '../../criu/ipc.js';
import { refuseOwnNamespaces } from '../../criu/namespaces.js';
import { findUnsavable, handlesDevices } from '../../criu/unsavable.js';
import type { Store } from '../../store/store.js';
import type { Attempt, CheckpointJob } from './attempt.js';

/** As far as earlier checkpoints tell, and before anything is frozen; the rest is seen when it is written. */
export function refuseTooLarge(job: CheckpointJob, store: Store): void {
  const { pace } = job;
  if (store.writeOnce === undefined || pace === undefined || pace.rateSamples === 0) return;
  const { totalBytes } = store.writeOnce;
  const rawBytes = readTree(job.appPid).reduce((sum, one) => sum + residentBytes(one.pid), pace.besideBytes);
  const expectedBytes = rawBytes * pace.storedRatio;
  if (expectedBytes <= totalBytes) return;
  const gigabytes = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);
  throw new FastFreezeError({
    code: 'store',
    op: 'checkpoint to',
    subject: store.url,
    reason: `the image would have about ${gigabytes(expectedBytes)} GB, and the cache holds ${gigabytes(totalBytes)}`,
    hint: 'use --cpu-budget high, or --image-url s3://...; FF_CACHE_LIMIT_GB where the repository has more',
  });
}

/** Before anything is stopped. Throws the first, with process and remedy. */
export function refuseUnsavable({ job, request }: Attempt, tree: readonly TreeProcess[]): void {
  refuseOwnNamespaces(tree);
  const { criu } = job.config;
  const [first] = findUnsavable(tree, {
    privileged: criu.privileged,
    hasOwnIpc: hasOwnIpc(job.appPid),
    devicesAreHandled: handlesDevices([...criu.extraOptions, ...(request.criuOptions ?? [])]),
  });
  if (first !== undefined) throw first.error;
}

/** CRIU dumps what descends from the application; a process that does not would silently be missing. */
export function refuseStrangers(job: CheckpointJob): void {
  const [stranger] = job.children.strangers(job.appPid);
  if (stranger === undefined) return;
  throw new FastFreezeError({
    code: 'unsupported',
    op: 'freeze process',
    subject: `${stranger.pid} (${stranger.name})`,
    reason: "it is a daemon that no longer descends from the application's first process, and would be left out",
    hint: 'let the application restart it, or keep it in the foreground',
  });
}

/**
 * What CRIU is told to leave unconnected. A client of ours within the tree would be frozen while it waits for us, and would
 * come back to a connection that is closed: throws `unsupported`.
 */
export function findOutside(job: CheckpointJob, tree: readonly TreeProcess[]): OutsideSocket[] {
  const outside = findOutsideSockets(tree);
  const ours = new Set(socketsOf('self').values());
  const client = outside.find(({ peer }) => ours.has(peer));
  if (client === undefined) {
    if (outside.length > 0) job.log.debug(`${outside.length} UNIX sockets lead out of the job: a restore closes them`);
    return outside;
  }
  throw new FastFreezeError({
    code: 'unsupported',
    op: 'freeze process',
    subject: `${client.process.pid} (${client.process.name})`,
    reason: 'it is a fastfreeze that was started within the job, and would be frozen with it',
    hint: 'ask from outside of the job, or use --checkpoint-every or --checkpoint-on',
  });
}

export function allowance({ job, request, isLast }: Attempt): Allowance {
  if (!job.config.allowInexact && request.allowInexact !== true) return 'nothing';
  return isLast ? 'everything' : 'what stays';
}
