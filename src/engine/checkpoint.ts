// SPDX-License-Identifier: Apache-2.0
import type { ChildProcess } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { readAffinity } from '../container/affinity.js';
import type { Children } from '../container/children.js';
import { type OpenFile, readOpenFiles } from '../container/open-files.js';
import { type FileHasher, type ReadFile, findReadFiles } from '../container/read-files.js';
import { type OutsideSocket, findOutsideSockets, socketsOf } from '../container/outside-sockets.js';
import type { AppStdio } from '../container/stdio/app-stdio.js';
import { pendingName } from '../container/stdio/record.js';
import { type TreeProcess, readTree, residentBytes } from '../container/tree.js';
import { type Capture, startCapture } from '../criu/capture.js';
import { type DumpProcess, startDump } from '../criu/dump.js';
import { type Allowance, refuseInexactState } from '../criu/exactness.js';
import { hasOwnIpc, inspectIpc } from '../criu/ipc.js';
import { findCause } from '../criu/log-causes.js';
import { refuseOwnNamespaces } from '../criu/namespaces.js';
import { withOptions } from '../criu/options.js';
import { findUnsavable, handlesDevices } from '../criu/unsavable.js';
import { realPath } from '../files/roots.js';
import { append } from '../image/append.js';
import { commitManifest, listGenerations } from '../image/generations.js';
import type { ImageKeys } from '../image/keys.js';
import { newPrefix } from '../image/names.js';
import { pruneGenerations, removeUncommitted } from '../image/prune.js';
import { type ImageWriter, createImageWriter } from '../image/writer.js';
import { readClocks } from '../linux/clocks.js';
import { unmapIdleCode } from '../linux/memory.js';
import type { Poller } from '../linux/poller.js';
import { type OpenOptions, type Store, openStore } from '../store/store.js';
import { type AppRecord, type PreservedFiles, appRecordToJson } from './app-record.js';

import { type Carrying, startCarrying } from './carry.js';
import type { CheckpointRequest, CheckpointResult, Preserve, Progress, SupervisorConfig } from './config.js';
import type { LeaseGuard } from './lease-guard.js';
import { manifestWriter } from './manifest-writer.js';
import { ASSUMED_PACE, type Pace, inheritedCopyPace, refinePace } from './pace.js';
import { type Preserving, adviceOnOpenFiles, isPreserved, preserveFiles, refuseOverlap } from './preserve.js';
import { readCopyPace, spoolUrl } from './spool.js';

/** What a checkpoint needs of the job. */
export interface CheckpointJob {
  readonly config: SupervisorConfig;
  readonly command: readonly string[];
  readonly appPid: number;
  readonly stdio: AppStdio;
  readonly poller: Poller;
  readonly children: Children;
  readonly log: Logger;
  readonly lease: LeaseGuard;
  /** Undefined where images are not encrypted. */
  readonly keys: ImageKeys | undefined;
  readonly fileHasher: FileHasher;
  /** Of earlier checkpoints; undefined before the first. */
  readonly pace: Pace | undefined;
  /** Every URL that images of this job have been asked for. */
  readonly destinations: readonly string[];
  /** Files to take along. */
  readonly preserve: Preserve;
  /** Told which files the application can change, and which are in the image. */
  readonly openFilesFound: (openFiles: readonly OpenFile[], files: PreservedFiles | undefined) => void;
  /** Told which objects are in the making, so that somebody can remove them if we die. */
  readonly announcePrefix: (prefix: string | null, url: string) => void;
  /** Told when a generation is durable in the spool and wants to be copied to where it belongs. */
  readonly spooled: (generation: number, url: string) => void;
  /** Told at the commit, before CRIU ends the application: its death by SIGKILL is then no accident. */
  readonly onCommitted: (stopped: boolean) => void;
  /** End whatever of the application still lives: its image is committed, and it must not run twice. */
  readonly endApplication: () => void;
}

const CODECS = { low: 'none', medium: 'lz4', high: 'zstd' } as const;

const PROGRESS_INTERVAL_MS = 200;
/** A store or a CRIU from which nothing is heard for so long is given up. */
const STALL_MS = 180_000;

/**
 * Freeze the application into a new generation. With `leaveRunning` it goes on as soon as its state is in our hands;
 * otherwise it stays frozen until the image is durable, and is then ended. Whatever fails, it runs on as before, the
 * objects written are removed, and the error says why.
 */
export async function checkpoint(
  job: CheckpointJob,
  request: CheckpointRequest,
  progress: (p: Progress) => void,
  signal: AbortSignal,
): Promise<CheckpointResult> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await attemptCheckpoint(job, request, progress, signal, attempt === MAX_ATTEMPTS);
    } catch (error) {
      // A child that was born at the wrong moment, a timer that has just fired: the next moment is another one.
      const passing = error instanceof FastFreezeError && error.passing;
      if (!passing || attempt === MAX_ATTEMPTS || signal.aborted) throw error;
      job.log.debug(`${error.message}; trying again`);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS * attempt));
    }
  }
}

const MAX_ATTEMPTS = 6;
const RETRY_MS = 40;

async function attemptCheckpoint(
  job: CheckpointJob,
  request: CheckpointRequest,
  progress: (p: Progress) => void,
  signal: AbortSignal,
  isLast: boolean,
): Promise<CheckpointResult> {
  const requestedMs = performance.now();
  const destination = request.imageUrl ?? job.config.imageUrl;
  const spool = job.config.spoolDirectory;
  const url = spool === undefined ? destination : spoolUrl(spool, destination);
  const opening = {
    onWait: (message: string) => job.log.warn(message),
    adopt: (child: ChildProcess) => job.children.adopt(child),
  };
  const store = openStore(url, opening);
  const prefix = newPrefix();
  job.announcePrefix(prefix, url);
  // Short: it is part of the path of a socket, which has room for 107 bytes.
  const directory = mkdtempSync(join(job.config.jobDirectory, 'd-'));
  try {
    // What goes elsewhere than the job's own place is nobody's next generation.
    if (destination === job.config.imageUrl) await job.lease.check();
    refuseOverlap(job.preserve.paths, url);
    await store.prepare();
    refuseTooLarge(job, store);
    const generation = (await newestGeneration([url, destination], opening)) + 1;
    const writer = await createImageWriter({
      store,
      prefix,
      numShards: request.numShards ?? job.config.numShards,
      codec: CODECS[request.cpuBudget ?? job.config.cpuBudget],
      ...(job.keys === undefined ? {} : { keys: job.keys }),
    });
    // Before anything is frozen: what comes now needs other code than what was, and memory of its own.
    unmapIdleCode();
    try {
      const carrying = job.preserve.mapped ? startCarrying(writer, job.fileHasher, signal) : undefined;
      const attempt = {
        job,
        request,
        requestedMs,
        store,
        writer,
        url,
        generation,
        directory,
        progress,
        signal,
        isLast,
        carrying,
      };
      await readBeforeFreeze(attempt);
      const result = await dumpAndCommit(attempt);
      if (destination === job.config.imageUrl) job.lease.committed(generation);
      if (spool === undefined) await pruneOld(job, store);
      else job.spooled(generation, destination);
      return { ...result, imageUrl: destination };
    } catch (error) {
      await writer.abort();
      throw error;
    }
  } catch (error) {
    await removeUncommitted(store, prefix).catch((cleanup: unknown) => {
      job.log.debug(`objects of the failed checkpoint stay behind: ${asFastFreezeError(cleanup, 'clean up').message}`);
    });
    throw error;
  } finally {
    job.announcePrefix(null, url);
    rmSync(directory, { recursive: true, force: true });
  }
}

async function newestGeneration(urls: readonly string[], opening: OpenOptions): Promise<number> {
  const newest = await Promise.all(
    [...new Set(urls)].map(async (url) => (await listGenerations(openStore(url, opening))).at(-1) ?? 0),
  );
  return Math.max(...newest);
}

/** As far as earlier checkpoints tell, and before anything is frozen; the rest is seen when it is written. */
function refuseTooLarge(job: CheckpointJob, store: Store): void {
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

interface Attempt {
  readonly job: CheckpointJob;
  readonly request: CheckpointRequest;
  /** By `performance.now()`. */
  readonly requestedMs: number;
  readonly store: Store;
  readonly writer: ImageWriter;
  readonly url: string;
  readonly generation: number;
  readonly directory: string;
  readonly progress: (p: Progress) => void;
  readonly signal: AbortSignal;
  /** What passes by itself has not passed in all the attempts before. */
  readonly isLast: boolean;
  /** Undefined when files that are only read are not to be taken along. */
  readonly carrying: Carrying | undefined;
}

async function dumpAndCommit(attempt: Attempt): Promise<CheckpointResult> {
  const { job, writer, signal, request } = attempt;
  const startedMs = performance.now();
  const running = readTree(job.appPid);
  refuseUnsavable(attempt, running);
  const outside = findOutside(job, running);
  const capture = startCapture({ directory: attempt.directory, poller: job.poller, writer });
  const dump = startDump({
    setup: withOptions(job.config.criu, request.criuOptions ?? []),
    pid: job.appPid,
    directory: attempt.directory,
    externals: [...job.stdio.externals, ...outside.map(({ inode }) => `unix[${inode}]`)],
    leaveRunning: request.leaveRunning,
    poller: job.poller,
    adopt: (child) => job.children.adopt(child),
  });
  const onAbort = (): void => capture.abort(calledOff());
  signal.addEventListener('abort', onAbort);
  const reporter = reportProgress(attempt, capture.files, startedMs, (error) => {
    capture.abort(error);
    attempt.carrying?.abort(error);
  });
  let frozenAtMs = startedMs;
  let preserving: Preserving | undefined;
  try {
    refuseIfCalledOff(signal);
    await unlessEnded(job, dump, capture.frozen);
    frozenAtMs = performance.now();
    const tree = readTree(job.appPid);
    reporter.expect(tree);
    refuseStrangers(job);
    refuseOwnNamespaces(tree);
    const ipc = inspectIpc(tree, job.config.container && !job.config.criu.privileged);
    const inexact = refuseInexactState(tree, job.config.criu.privileged, allowance(attempt), ipc.found);
    const clocks = readClocks();
    const openFiles = readOpenFiles(tree, job.config.jobDirectory);
    // Before the files are looked at: `--output` may be among them.
    const snapshot = await job.stdio.snapshot();
    preserving = preserveFiles({
      ...job,
      openFiles,
      writer,
      imageUrls: [attempt.url, job.config.imageUrl, ...job.destinations],
    });
    const { done: preserved } = preserving;
    await unlessEnded(job, dump, Promise.all([capture.complete(dump.gateReached), dump.gateReached, preserved]));
    const files = await preserved;
    const hashed = await hashReadFiles(attempt, tree, { written: openFiles.map(({ path }) => path), files });
    const completed = attempt.carrying?.complete(hashed);
    if (completed !== undefined) await unlessEnded(job, dump, completed);
    const { reads, carried } = (await completed) ?? { reads: hashed, carried: undefined };
    const affinity = readAffinity(tree);
    const capturingMs = performance.now() - frozenAtMs;
    let frozenMs = capturingMs;
    if (request.leaveRunning) {
      await release(job, dump, 'commit');
      job.stdio.thaw();
    }
    for (const [role, bytes] of snapshot.pending) await addFile(writer, pendingName(role), bytes);
    const image = await writer.finish();
    refuseIfCalledOff(signal);
    const { spoolDirectory: spool, imageUrl } = job.config;
    const inherited = job.pace?.copying;
    const copying =
      (spool === undefined ? undefined : readCopyPace(spool, imageUrl)) ??
      (inherited === undefined ? undefined : inheritedCopyPace(inherited));
    const known = { ...(job.pace ?? ASSUMED_PACE), ...(copying === undefined ? {} : { copying }) };
    const pace = refinePace(known, {
      residentBytes: reporter.expectedBytes(),
      rawBytes: image.rawBytes,
      storedBytes: image.storedBytes,
      preparingMs: frozenAtMs - attempt.requestedMs,
      capturingMs,
      durableMs: performance.now() - attempt.requestedMs,
    });
    const record: AppRecord = {
      command: job.command,
      pid: job.appPid,
      taken: tree.flatMap((one) => [one.pid, one.pgid, one.sid, ...one.tids]).filter((pid) => pid > 0),
      processes: tree.length,
      residentBytes: reporter.expectedBytes(),
      clocks,
      privileged: job.config.criu.privileged,
      ...(job.config.identity === undefined ? {} : { identity: job.config.identity }),
      streams: snapshot.records,
      affinity,
      ...(hasOwnIpc(job.appPid) ? { ownIpc: true } : {}),
      ...(ipc.removedSegments.length === 0 ? {} : { removedSegments: ipc.removedSegments }),
      appending: openFiles.flatMap(({ isAppended, path, lengthBytes }) => (isAppended ? [{ path, lengthBytes }] : [])),
      reads,
      inexact,
      ...(outside.length === 0 ? {} : { outsideSockets: outside.length }),
      ...(files === undefined ? {} : { files }),
      ...(carried === undefined ? {} : { carried }),
      ...(job.config.cpu === undefined ? {} : { cpu: job.config.cpu }),
      pace,
    };
    for (const what of inexact) job.log.warn(`the image is not exact: ${what}`);
    await commit(attempt, image, record);
    job.openFilesFound(openFiles, files);
    if (!request.leaveRunning) {
      job.onCommitted(true);
      frozenMs = performance.now() - frozenAtMs;
      await release(job, dump, 'commit');
      // CRIU has ended it, unless somebody ended CRIU.
      job.endApplication();
    }
    return {
      imageUrl: attempt.url,
      generation: attempt.generation,
      rawBytes: image.rawBytes,
      storedBytes: image.storedBytes,
      frozenMs: Math.round(frozenMs),
      durableMs: Math.round(performance.now() - startedMs),
      leftRunning: request.leaveRunning,
      shards: writer.transfers().map(({ sizeBytes, durationMs }) => ({
        sizeBytes,
        durationMs: Math.round(durationMs),
      })),
      encrypted: job.keys !== undefined,
      advice: adviceOn(openFiles, files, outside),
      files: files === undefined ? null : { entries: files.entries, dataBytes: files.dataBytes },
      carried: carried ?? null,
      pace,
    };
  } catch (error) {
    await letGo(job, capture, dump, error);
    await preserving?.stop();
    throw writer.error ?? error;
  } finally {
    reporter.stop();
    signal.removeEventListener('abort', onAbort);
  }
}

/** Before anything is stopped. Throws the first, with process and remedy. */
function refuseUnsavable({ job, request }: Attempt, tree: readonly TreeProcess[]): void {
  refuseOwnNamespaces(tree);
  const { criu } = job.config;
  const [first] = findUnsavable(tree, {
    privileged: criu.privileged,
    hasOwnIpc: hasOwnIpc(job.appPid),
    devicesAreHandled: handlesDevices([...criu.extraOptions, ...(request.criuOptions ?? [])]),
  });
  if (first !== undefined) throw first.error;
}

function allowance({ job, request, isLast }: Attempt): Allowance {
  if (!job.config.allowInexact && request.allowInexact !== true) return 'nothing';
  return isLast ? 'everything' : 'what stays';
}

/**
 * What CRIU is told to leave unconnected. A client of ours within the tree would be frozen while it waits for us, and would
 * come back to a connection that is closed: throws `unsupported`.
 */
function findOutside(job: CheckpointJob, tree: readonly TreeProcess[]): OutsideSocket[] {
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

/** What may surprise at a restore of this image, in words for people. */
function adviceOn(
  openFiles: readonly OpenFile[],
  files: PreservedFiles | undefined,
  outside: readonly OutsideSocket[],
): string[] {
  const [first] = outside;
  const onFiles = adviceOnOpenFiles(openFiles, files);
  const [what, verb] = outside.length === 1 ? ['A UNIX socket', 'leads'] : [`${outside.length} UNIX sockets`, 'lead'];
  const closed =
    first &&
    `${what} of the application (process ${first.process.pid}, descriptor ${first.fd}) ${verb} to processes outside the job: ` +
      'a restore closes them, and it must connect again';
  return [onFiles, closed].filter((one) => one !== undefined);
}

/** So that all but what has just been opened is known, or in the image, when the application waits. */
async function readBeforeFreeze(attempt: Attempt): Promise<void> {
  const { job, carrying } = attempt;
  const tree = readTree(job.appPid);
  const written = readOpenFiles(tree, job.config.jobDirectory).map(({ path }) => path);
  const preserved = { roots: job.preserve.paths.map(realPath), except: job.config.preserveExcept.map(realPath) };
  const read = findReadFiles(tree, [job.config.jobDirectory, ...written]);
  const paths = read.filter((path) => !isPreserved(path, preserved));
  if (carrying === undefined) {
    await job.fileHasher.describe(paths);
    return;
  }
  const reporter = reportProgress(attempt, carrying.taken, performance.now(), (error) => carrying.abort(error));
  try {
    await carrying.take(paths);
  } finally {
    reporter.stop();
  }
}

async function hashReadFiles(
  { job }: Attempt,
  tree: readonly TreeProcess[],
  { written, files }: { readonly written: readonly string[]; readonly files: PreservedFiles | undefined },
): Promise<ReadFile[]> {
  const read = findReadFiles(tree, [job.config.jobDirectory, ...written]);
  return await job.fileHasher.describe(read.filter((path) => !isPreserved(path, files)));
}

/** CRIU dumps what descends from the application; a process that does not would silently be missing. */
function refuseStrangers(job: CheckpointJob): void {
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

/** Wait for a step of the dump; CRIU's end before it is CRIU's failure, and its log says why. */
async function unlessEnded(job: CheckpointJob, dump: DumpProcess, step: Promise<unknown>): Promise<void> {
  const ended = Symbol('ended');
  const first = await Promise.race([step, dump.exited.then(() => ended)]);
  if (first === ended) throw dumpFailure(job, dump, await dump.exited);
}

/** Make CRIU fail and resume the application, by closing its pipes; never by a signal, which could kill both. */
async function letGo(job: CheckpointJob, capture: Capture, dump: DumpProcess, error: unknown): Promise<void> {
  capture.abort(error instanceof Error ? error : new Error(String(error)));
  dump.release('resume');
  const slow = setTimeout(() => job.log.warn('CRIU has not let go of the application yet; waiting for it'), 10_000);
  await dump.exited;
  clearTimeout(slow);
  job.stdio.thaw();
}

async function release(job: CheckpointJob, dump: DumpProcess, verdict: 'commit' | 'resume'): Promise<void> {
  dump.release(verdict);
  const code = await dump.exited;
  if (code !== 0) job.log.warn(`CRIU ended with exit code ${code} after a complete dump`);
}

async function commit(
  attempt: Attempt,
  image: Awaited<ReturnType<ImageWriter['finish']>>,
  record: AppRecord,
): Promise<void> {
  // A spool takes it even while the destination, where the lease is, cannot be reached.
  if (attempt.url === attempt.job.config.imageUrl) await attempt.job.lease.confirm();
  const manifest = manifestWriter(attempt.job.config).checkpoint(
    attempt.generation,
    image,
    appRecordToJson(record),
    attempt.job.keys,
  );
  if (attempt.url === attempt.job.config.imageUrl) attempt.job.lease.attempting(manifest.checksum);
  const outcome = await commitManifest(attempt.store, manifest);
  if (outcome === 'created') return;
  throw new FastFreezeError({
    code: 'conflict',
    op: 'commit generation',
    subject: `${attempt.generation} of ${attempt.url}`,
    reason: 'another machine has committed it: this job runs twice',
    hint: 'stop one of the two',
  });
}

async function addFile(writer: ImageWriter, name: string, bytes: Buffer): Promise<void> {
  const file = writer.file(name);
  await append(writer, file, bytes);
  file.end();
}

async function pruneOld(job: CheckpointJob, store: Store): Promise<void> {
  // They go by themselves, and not before.
  if (store.writeOnce !== undefined) return;
  try {
    await pruneGenerations(store, job.config.keep);
  } catch (error) {
    // The new image is safe; old ones that stay cost room, nothing else.
    job.log.warn(`old generations stay: ${asFastFreezeError(error, 'remove old generations').message}`);
  }
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

/** Keep CRIU's log where a user finds it after the working directory has gone. */
export function keepLog(job: Pick<CheckpointJob, 'config' | 'log'>, logPath: string): string | undefined {
  const stamp = new Date().toISOString().replace(/[-:]/g, '').slice(0, 15);
  const kind = logPath.endsWith('restore.log') ? 'restore' : 'dump';
  const kept = join(job.config.logDirectory, `criu-${kind}-${job.config.jobName.replaceAll('/', '_')}-${stamp}.log`);
  try {
    mkdirSync(job.config.logDirectory, { recursive: true, mode: 0o700 });
    copyFileSync(logPath, kept);
    return kept;
  } catch (error) {
    job.log.debug(`CRIU's log could not be kept: ${asFastFreezeError(error, 'keep the log').message}`);
    return undefined;
  }
}

function refuseIfCalledOff(signal: AbortSignal): void {
  if (signal.aborted) throw calledOff();
}

function stalled(): FastFreezeError {
  return new FastFreezeError({
    code: 'store',
    op: 'finish the checkpoint',
    reason: `nothing has moved for ${STALL_MS / 1000} s`,
    hint: 'the application runs on; see whether the storage hangs',
  });
}

function calledOff(): FastFreezeError {
  return new FastFreezeError({
    code: 'aborted',
    op: 'finish the checkpoint',
    reason: 'whoever asked for it has gone',
    hint: 'the application runs on; ask again',
  });
}

interface Reporter {
  expect(tree: readonly TreeProcess[]): void;
  expectedBytes(): number;
  stop(): void;
}

/** Tells how far it is, and calls the checkpoint off when nothing moves any more: a frozen job costs its user time. */
function reportProgress(
  attempt: Attempt,
  files: ReadonlyMap<string, unknown>,
  startedMs: number,
  abort: (error: Error) => void,
): Reporter {
  let expected = 0;
  let moved = '';
  let movedAtMs = startedMs;
  const timer = setInterval(() => {
    const { rawBytes, storedBytes } = attempt.writer.stats;
    const nowMs = performance.now();
    const elapsedMs = Math.round(nowMs - startedMs);
    const position = `${rawBytes} ${storedBytes} ${files.size}`;
    if (position !== moved) {
      moved = position;
      movedAtMs = nowMs;
    } else if (nowMs - movedAtMs > STALL_MS) abort(stalled());
    attempt.progress({ phase: 'dump', doneBytes: rawBytes, storedBytes, totalBytes: expected, elapsedMs });
  }, PROGRESS_INTERVAL_MS);
  return {
    expect: (tree) => (expected = tree.reduce((sum, one) => sum + residentBytes(one.pid), 0)),
    expectedBytes: () => expected,
    stop: () => clearInterval(timer),
  };
}
