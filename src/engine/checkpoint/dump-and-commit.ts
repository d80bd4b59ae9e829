// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import type { OpenFile } from '../../container/open-files.js';
import type { OutsideSocket } from '../../container/outside-sockets.js';
import { pendingName } from '../../container/stdio/record.js';
import { readTree } from '../../container/tree.js';
import { type Capture, startCapture } from '../../criu/capture.js';
import { type DumpProcess, startDump } from '../../criu/dump.js';
import { withOptions } from '../../criu/options.js';
import { append } from '../../image/append.js';
import { commitManifest } from '../../image/generations.js';
import type { SealedImage } from '../../image/manifest.js';
import type { ImageWriter } from '../../image/writer.js';
import { type AppRecord, type PreservedFiles, appRecordToJson } from '../app-record.js';
import type { CheckpointResult } from '../config.js';
import { commitUnderLease } from '../commit.js';
import { manifestWriter } from '../manifest-writer.js';
import type { Pace } from '../pace.js';
import { adviceOnOpenFiles } from '../preserve.js';
import type { Attempt, CheckpointJob } from './attempt.js';
import { reasonOf, refuseIfCalledOff, unlessCalledOff } from './called-off.js';
import { type Dumping, type FrozenState, takeFrozenState } from './frozen-state.js';
import { makeRecord, measurePace } from './record.js';
import { findOutside, refuseUnsavable } from './refusals.js';
import { reportProgress } from './reporter.js';

/**
 * Have CRIU dump the tree into the image, and commit it. Whatever fails, CRIU has let go of the application when this
 * rejects; objects already written are the caller's to remove. Called off before the commit, it waits for nothing of the
 * store's: the application would stand still for as long as that hangs.
 */
export async function dumpAndCommit(attempt: Attempt): Promise<CheckpointResult> {
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
  const onCallOff = (): void => capture.abort(reasonOf(signal));
  signal.addEventListener('abort', onCallOff);
  const reporter = reportProgress(attempt, capture.files, startedMs);
  const dumping: Dumping = { attempt, capture, dump, reporter, outside, preserving: undefined };
  try {
    refuseIfCalledOff(signal);
    const state = await takeFrozenState(dumping);
    if (request.leaveRunning) {
      await release(job, dump, 'commit');
      job.lease.appGoesOn();
      job.stdio.thaw();
    }
    const image = await unlessCalledOff(signal, finishImage(writer, state));
    const pace = measurePace(dumping, state, image);
    for (const what of state.inexact) job.log.warn(`the image is not exact: ${what}`);
    await commit(attempt, image, makeRecord(dumping, state, pace));
    job.openFilesFound(state.openFiles, state.files);
    let frozenMs = state.capturingMs;
    if (!request.leaveRunning) {
      job.onCommitted(true);
      frozenMs = performance.now() - state.frozenAtMs;
      await release(job, dump, 'commit');
      // CRIU has ended it, unless somebody ended CRIU.
      job.endApplication();
    }
    return {
      ...describe(dumping, state, image, pace),
      frozenMs: Math.round(frozenMs),
      durableMs: Math.round(performance.now() - startedMs),
    };
  } catch (error) {
    await letGo(job, capture, dump, error);
    await dumping.preserving?.stop();
    throw writer.error ?? error;
  } finally {
    reporter.stop();
    signal.removeEventListener('abort', onCallOff);
  }
}

async function finishImage(writer: ImageWriter, { streams }: FrozenState): Promise<SealedImage> {
  for (const [role, bytes] of streams.pending) await addFile(writer, pendingName(role), bytes);
  return await writer.finish();
}

function describe(
  { attempt, outside }: Dumping,
  { openFiles, files, carried }: FrozenState,
  image: SealedImage,
  pace: Pace,
): Omit<CheckpointResult, 'frozenMs' | 'durableMs'> {
  const { job, writer, request } = attempt;
  return {
    imageUrl: attempt.url,
    generation: attempt.generation,
    rawBytes: image.rawBytes,
    storedBytes: image.storedBytes,
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
}

/** Make CRIU fail and resume the application, by closing its pipes; never by a signal, which could kill both. */
async function letGo(job: CheckpointJob, capture: Capture, dump: DumpProcess, error: unknown): Promise<void> {
  capture.abort(error instanceof Error ? error : new Error(String(error)));
  dump.release('resume');
  const slow = setTimeout(() => job.log.warn('CRIU has not let go of the application yet; waiting for it'), 10_000);
  await dump.exited;
  clearTimeout(slow);
  job.lease.appGoesOn();
  job.stdio.thaw();
}

async function release(job: CheckpointJob, dump: DumpProcess, verdict: 'commit' | 'resume'): Promise<void> {
  dump.release(verdict);
  const code = await dump.exited;
  if (code !== 0) job.log.warn(`CRIU ended with exit code ${code} after a complete dump`);
}

async function addFile(writer: ImageWriter, name: string, bytes: Buffer): Promise<void> {
  const file = writer.file(name);
  await append(writer, file, bytes);
  file.end();
}

async function commit(attempt: Attempt, image: SealedImage, record: AppRecord): Promise<void> {
  // A spool takes it even while the destination, where the lease is, cannot be reached.
  const needsLease = attempt.url === attempt.job.config.imageUrl;
  if (needsLease) await unlessCalledOff(attempt.signal, attempt.job.lease.confirm());
  // From here on it cannot be called off: who writes a manifest has to hear whether it stands.
  refuseIfCalledOff(attempt.signal);
  const manifest = manifestWriter(attempt.job.config).checkpoint(
    attempt.generation,
    image,
    appRecordToJson(record),
    attempt.job.keys,
  );
  const outcome = needsLease
    ? await commitUnderLease(attempt.store, manifest, attempt.job.lease)
    : await commitManifest(attempt.store, manifest);
  if (outcome === 'created') return;
  throw new FastFreezeError({
    code: 'conflict',
    op: 'commit generation',
    subject: `${attempt.generation} of ${attempt.url}`,
    reason: 'another machine has committed it: this job runs twice',
    hint: 'stop one of the two',
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
