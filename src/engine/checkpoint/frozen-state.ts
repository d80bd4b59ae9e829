// SPDX-License-Identifier: Apache-2.0
import { readAffinity } from '../../container/affinity.js';
import { type OpenFile, readOpenFiles } from '../../container/open-files.js';
import type { OutsideSocket } from '../../container/outside-sockets.js';
import type { ReadFile } from '../../container/read-files.js';
import type { AppStdio } from '../../container/stdio/app-stdio.js';
import { type TreeProcess, readTree } from '../../container/tree.js';
import type { Capture } from '../../criu/capture.js';
import type { DumpProcess } from '../../criu/dump.js';
import { refuseInexactState } from '../../criu/exactness.js';
import { type IpcFindings, inspectIpc } from '../../criu/ipc.js';
import { refuseOwnNamespaces } from '../../criu/namespaces.js';
import { readClocks } from '../../linux/clocks.js';
import type { AppRecord, CarriedFiles, PreservedFiles } from '../app-record.js';
import { type Preserving, preserveFiles } from '../preserve.js';
import type { Attempt } from './attempt.js';
import { unlessEnded } from './ended.js';
import { hashReadFiles } from './read-files.js';
import { allowance, refuseStrangers } from './refusals.js';
import type { Reporter } from './reporter.js';

/** A dump under way. */
export interface Dumping {
  readonly attempt: Attempt;
  readonly capture: Capture;
  readonly dump: DumpProcess;
  readonly reporter: Reporter;
  /** UNIX sockets that lead out of the job. */
  readonly outside: readonly OutsideSocket[];
  /** Set once files are being read; whoever calls the dump off stops it, after the application has been let go. */
  preserving: Preserving | undefined;
}

/** What there is of the application while it does not move. */
export interface FrozenState {
  readonly tree: readonly TreeProcess[];
  readonly clocks: AppRecord['clocks'];
  readonly affinity: AppRecord['affinity'];
  readonly ipc: IpcFindings;
  /** What a restore would change, in words. */
  readonly inexact: AppRecord['inexact'];
  readonly streams: Awaited<ReturnType<AppStdio['snapshot']>>;
  readonly openFiles: readonly OpenFile[];
  readonly files: PreservedFiles | undefined;
  readonly reads: readonly ReadFile[];
  readonly carried: CarriedFiles | undefined;
  /** By `performance.now()`: since when it does not move. */
  readonly frozenAtMs: number;
  /** Until all of it was in our hands. */
  readonly capturingMs: number;
}

/** Wait until CRIU has stopped the tree, refuse what an image of it could not hold, and take all that it is. */
export async function takeFrozenState(dumping: Dumping): Promise<FrozenState> {
  const { attempt, capture, dump, reporter } = dumping;
  const { job, writer } = attempt;
  await unlessEnded(job, dump, capture.frozen);
  const frozenAtMs = performance.now();
  const tree = readTree(job.appPid);
  reporter.expect(tree);
  refuseStrangers(job);
  refuseOwnNamespaces(tree);
  const ipc = inspectIpc(tree, job.config.container && !job.config.criu.privileged);
  const inexact = refuseInexactState(tree, job.config.criu.privileged, allowance(attempt), ipc.found);
  const clocks = readClocks();
  const openFiles = readOpenFiles(tree, job.config.jobDirectory);
  // Before the files are looked at: `--output` may be among them.
  const streams = await job.stdio.snapshot();
  const preserving = preserveFiles({
    ...job,
    openFiles,
    writer,
    imageUrls: [attempt.url, job.config.imageUrl, ...job.destinations],
  });
  dumping.preserving = preserving;
  await unlessEnded(job, dump, Promise.all([capture.complete(dump.gateReached), dump.gateReached, preserving.done]));
  const files = await preserving.done;
  const hashed = await hashReadFiles(attempt, tree, { written: openFiles.map(({ path }) => path), files });
  const completed = attempt.carrying?.complete(hashed);
  if (completed !== undefined) await unlessEnded(job, dump, completed);
  const { reads, carried } = (await completed) ?? { reads: hashed, carried: undefined };
  const affinity = readAffinity(tree);
  const capturingMs = performance.now() - frozenAtMs;
  return { tree, clocks, affinity, ipc, inexact, streams, openFiles, files, reads, carried, frozenAtMs, capturingMs };
}
