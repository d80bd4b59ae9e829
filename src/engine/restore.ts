// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { FastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { restoreAffinity } from '../container/affinity.js';
import { refuseChangedAppending } from '../container/appending.js';
import type { App } from '../container/app.js';
import type { Children } from '../container/children.js';
import { makeRoomForPids } from '../container/pids.js';
import { type AppStdio, type StdioOptions, restoredStdio } from '../container/stdio/app-stdio.js';
import { type StreamRecord, pendingName } from '../container/stdio/record.js';
import { type ChangedFile, findChangedReadFiles, refuseChangedReadFiles } from '../container/read-files.js';
import { withOtherPorts } from '../criu/images/listeners.js';
import { withOutsideClosed } from '../criu/images/outside-sockets.js';
import { APP_TMP } from '../container/temporary.js';
import { hasOwnIpc } from '../criu/ipc.js';
import { findCause } from '../criu/log-causes.js';
import { refuseBrokenTools } from '../criu/tools.js';
import { type RestoreProcess, startRestore } from '../criu/restore.js';
import { type Serving, startServing } from '../criu/serve.js';
import type { StagedFiles } from '../files/stage.js';
import { readManifest } from '../image/generations.js';
import { checkSeal } from '../image/manifest.js';
import { manifestName } from '../image/names.js';
import { type ImageReader, openImage } from '../image/reader.js';
import { inIpcNamespaceOf, inNewIpcNamespace, removeSegment, requireLimits } from '../linux/ipc.js';
import { unmapIdleCode } from '../linux/memory.js';
import { reachesDatagramSocket } from '../linux/unix-socket.js';
import type { Poller } from '../linux/poller.js';
import { openStore } from '../store/store.js';
import { type AppRecord, parseAppRecord } from './app-record.js';
import { unpackReplacements } from './carry.js';
import { keepLog } from './criu-log.js';
import type { Progress, SupervisorConfig } from './config.js';
import { revive } from './passphrase.js';
import { isPreserved, stagePreserved } from './preserve.js';

export interface RestoreJob {
  readonly config: SupervisorConfig;
  readonly stdioOptions: StdioOptions;
  readonly poller: Poller;
  readonly children: Children;
  readonly log: Logger;
  /** Why the application's temporary files cannot be at their place; undefined when they can. */
  readonly temporaryProblem: FastFreezeError | undefined;
}

export interface Restored {
  readonly app: App;
  readonly stdio: AppStdio;
  readonly record: AppRecord;
  readonly rawBytes: number;
  /** Files of the image that the application sees in the place of this machine's. */
  readonly replacedFiles: readonly string[];
  /** When the checkpoint was made. */
  readonly createdAt: string;
  /** Stored sizes of the objects it was read from. */
  readonly shardBytes: readonly number[];
}

/** A pipe never holds more than this for us to carry (kernel maximum plus our own piece). */
const MAX_PENDING_BYTES = 64 << 20;
const PROGRESS_INTERVAL_MS = 200;
/** A restore that does not move for so long is ended; nothing of the application has run. */
const STALL_MS = 300_000;

/**
 * Bring the application back from a generation. Every byte is verified before CRIU sees it, and CRIU lets the
 * application run only after all of it was read: when this throws, nothing of it has run.
 */
export async function restore(job: RestoreJob, generation: number, progress: (p: Progress) => void): Promise<Restored> {
  const { config } = job;
  const store = openStore(config.imageUrl, {
    onWait: (message) => job.log.warn(message),
    adopt: (child) => job.children.adopt(child),
  });
  const manifest = await readManifest(store, generation, { allowBadVersion: config.allowBadImageVersion });
  const keys = revive(config.keys);
  checkSeal(manifest, keys, manifestName(generation));
  const record = parseAppRecord(manifest.app);
  if (record.privileged !== config.criu.privileged) throw wrongIdentity(record);
  if (record.ownIpc === true) refuseWithoutIpc();
  // What fetches the image may be a process of its own, and is not to have a PID of the application's either.
  if (store.writeOnce !== undefined) makeRoomForPids(record.taken);
  refuseChangedAppending(record.appending.filter(({ path }) => !isPreserved(path, record.files)));
  for (const what of record.inexact) job.log.warn(`the image is not exact: ${what}`);
  const changed = await findChangedReadFiles(record.reads);
  const canReplace = record.carried !== undefined && config.container;
  if (!canReplace) refuseChanged(job, changed, record);
  if (job.temporaryProblem !== undefined && isPreserved(APP_TMP, record.files)) throw job.temporaryProblem;
  const image = await openImage({ store, manifest, keys });
  const directory = mkdtempSync(join(config.jobDirectory, 'r-'));
  let serving: Serving | undefined;
  let criu: RestoreProcess | undefined;
  const startedMs = performance.now();
  const totalBytes = manifest.image?.rawBytes ?? 0;
  let [fileBytes, carriedBytes] = [0, 0];
  // Not done for that: CRIU may read them still, or never.
  let checkedBytes = 0;
  let movedBytes = -1;
  let movedAtMs = startedMs;
  const timer = setInterval(() => {
    const nowMs = performance.now();
    const doneBytes = carriedBytes + fileBytes + (serving?.servedBytes() ?? 0);
    progress({ phase: 'restore', doneBytes, storedBytes: 0, totalBytes, elapsedMs: Math.round(nowMs - startedMs) });
    if (doneBytes + checkedBytes !== movedBytes) {
      movedBytes = doneBytes + checkedBytes;
      movedAtMs = nowMs;
    } else if (nowMs - movedAtMs > STALL_MS) criu?.kill();
  }, PROGRESS_INTERVAL_MS);
  const verifyRest = async (): Promise<void> => {
    const before = checkedBytes;
    await image.verifyRest((bytes) => (checkedBytes = before + bytes));
  };
  try {
    const pending = await readPending(image, record);
    const replacements = await unpackReplacements(
      job,
      image,
      { reads: record.reads, changed: canReplace ? changed : [] },
      (bytes) => (carriedBytes = bytes),
    );
    if (canReplace) refuseChanged(job, replacements.left, record);
    // What can be refused is refused before a file of this machine changes.
    replacements.check(record.files?.roots ?? []);
    makeRoomForPids(record.taken);
    if (record.files !== undefined) {
      const staged = await stagePreserved(config, image, record.files, job.log, (bytes) => (fileBytes = bytes));
      await bringBackFiles(staged, verifyRest);
    }
    refuseChangedAppending(record.appending);
    // After files were brought back, which may have made directories that these are in.
    const replacedFiles = replacements.bind();
    if (replacedFiles.length > 0) refuseBrokenTools(config.criu.command, replacedFiles);
    const stdio = restoredStdio(job.stdioOptions, record.streams, pending);
    // Once more: others have started since.
    makeRoomForPids(record.taken);
    unmapIdleCode();
    const served = await withOtherSockets(job, image, record);
    serving = startServing({ directory, poller: job.poller, image: served });
    criu = startRestore({
      setup: config.criu,
      directory,
      inherited: stdio.inherited,
      leaveStopped: config.leaveStopped,
      poller: job.poller,
      adopt: (child) => job.children.adopt(child),
    });
    // What came before it may have taken its time.
    movedAtMs = performance.now();
    const code = await Promise.race([criu.exited, serving.failed, readyToRun(job, criu, verifyRest, record)]);
    if (code !== 0) {
      // CRIU's own complaint may only echo that we closed a pipe on it over a bad chunk.
      await Promise.race([serving.failed, new Promise((resolve) => setTimeout(resolve, 20))]);
      throw restoreFailure(job, criu.logPath, code);
    }
    stdio.releaseAppEnds();
    const app: App = { pid: record.pid, exited: job.children.waitFor(record.pid) };
    const shardBytes = (manifest.image?.shards ?? []).map(({ sizeBytes }) => sizeBytes);
    const { createdAt } = manifest;
    return { app, stdio, record, rawBytes: totalBytes, createdAt, shardBytes, replacedFiles };
  } catch (error) {
    criu?.kill();
    throw error;
  } finally {
    clearInterval(timer);
    serving?.close();
    image.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Files that are not what they were, where those of the image cannot be shown in their place. */
function refuseChanged({ config, log }: RestoreJob, changed: readonly ChangedFile[], record: AppRecord): void {
  const hint =
    record.carried !== undefined && !config.container
      ? 'leave out --no-container: in a container of its own the application can be shown the files that the image carries'
      : undefined;
  for (const what of refuseChangedReadFiles(changed, config.allowInexact, hint)) {
    log.warn(`the application does not continue exactly: ${what}`);
  }
}

/** CRIU would fail at it when this machine's files have been changed already. */
function refuseWithoutIpc(): void {
  try {
    inNewIpcNamespace(requireLimits);
  } catch (error) {
    throw new FastFreezeError({
      code: 'host',
      op: 'bring back the IPC namespace of the application',
      reason: `this kernel, or container, does not let us (${error instanceof Error ? error.message : String(error)})`,
      hint: 'a normal user needs Linux 6.9 or a kernel with that patch; root a container of its own, without --no-container',
      cause: error,
    });
  }
}

/** Before CRIU looks for the files that the application had open. */
async function bringBackFiles(staged: StagedFiles, verifyRest: () => Promise<void>): Promise<void> {
  try {
    // What is there is not given up for an image that turns out to be damaged a moment later.
    if (staged.overwrites) await verifyRest();
    await staged.apply();
  } catch (error) {
    staged.discard();
    throw error;
  }
}

/**
 * What CRIU did not ask for is checked too, and what it does not bring back is put right, before anything runs. Rejects at the
 * first damage, and never resolves.
 */
async function readyToRun(
  job: RestoreJob,
  criu: RestoreProcess,
  verifyRest: () => Promise<void>,
  record: AppRecord,
): Promise<never> {
  await criu.gateReached;
  await verifyRest();
  for (const { tid, cpus } of restoreAffinity(record.affinity)) {
    job.log.warn(`thread ${tid} ran on CPUs ${cpus} only, which this machine does not have`);
  }
  const { removedSegments = [] } = record;
  if (removedSegments.length > 0 && hasOwnIpc(record.pid))
    inIpcNamespaceOf(record.pid, () => removedSegments.forEach(removeSegment));
  criu.release();
  return await new Promise<never>(() => undefined);
}

/** The image as it is to continue here: on other ports, and without the connections that led out of the job. */
async function withOtherSockets(job: RestoreJob, image: ImageReader, record: AppRecord): Promise<ImageReader> {
  const count = record.outsideSockets ?? 0;
  if (count > 0) job.log.debug(`${count} UNIX sockets led out of the job: they are closed, or connected again`);
  // Also without any: one may have been connected after they were counted, just before the freeze.
  const closed = await withOutsideClosed(image, reachesDatagramSocket);
  return await withOtherPorts(closed, new Map(job.config.listenPorts));
}

async function readPending(image: ImageReader, record: AppRecord): Promise<Map<StreamRecord['role'], Buffer>> {
  const pending = new Map<StreamRecord['role'], Buffer>();
  for (const stream of record.streams) {
    if (stream.pendingBytes === 0) continue;
    const bytes = await image.readAll(pendingName(stream.role), MAX_PENDING_BYTES);
    if (bytes.length !== stream.pendingBytes) {
      throw new FastFreezeError({
        code: 'image',
        op: 'read the pending bytes of',
        subject: stream.role,
        reason: `the image holds ${bytes.length} bytes where its manifest says ${stream.pendingBytes}`,
      });
    }
    pending.set(stream.role, bytes);
  }
  return pending;
}

function restoreFailure(job: RestoreJob, logPath: string, code: number): FastFreezeError {
  const cause = findCause(logPath);
  const kept = keepLog(job, logPath);
  return new FastFreezeError({
    code: 'criu',
    op: 'restore the application',
    reason: cause?.reason ?? `CRIU ended with exit code ${code} and no word why`,
    hint: `${cause?.hint ?? '--no-restore starts over'}; CRIU's log is ${kept ?? 'lost'}`,
  });
}

function wrongIdentity(record: AppRecord): FastFreezeError {
  return new FastFreezeError({
    code: 'image',
    op: 'restore the application',
    reason: record.privileged
      ? 'the image was made by root, and a normal user cannot restore its identities'
      : 'the image was made by a normal user, in a user namespace',
    hint: record.privileged ? 'run as root' : 'run as a normal user (setpriv, su or runuser)',
  });
}
