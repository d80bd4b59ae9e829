// SPDX-License-Identifier: Apache-2.0
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import { newPrefix } from '../image/names.js';
import { pruneGenerations, removeUncommitted } from '../image/prune.js';
import { type ImageWriter, createImageWriter } from '../image/writer.js';
import { unmapIdleCode } from '../linux/memory.js';
import { type Store, openStore } from '../store/store.js';
import { startCarrying } from './carry.js';
import type { CheckpointJob } from './checkpoint/attempt.js';
import { callingOff } from './checkpoint/called-off.js';
import { dumpAndCommit } from './checkpoint/dump-and-commit.js';
import { readBeforeFreeze } from './checkpoint/read-files.js';
import { refuseTooLarge } from './checkpoint/refusals.js';
import type { CheckpointRequest, CheckpointResult, Progress } from './config.js';
import { refuseOverlap } from './preserve.js';
import { newestGeneration, spoolUrl } from './spool.js';

const CODECS = { low: 'none', medium: 'lz4', high: 'zstd' } as const;

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
  client: AbortSignal,
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
  const calling = callingOff(client);
  let writer: ImageWriter | undefined;
  try {
    // What goes elsewhere than the job's own place is nobody's next generation.
    if (destination === job.config.imageUrl) await job.lease.check();
    refuseOverlap(job.preserve.paths, url);
    await store.prepare();
    refuseTooLarge(job, store);
    const generation = (await newestGeneration(destination, spool, opening)) + 1;
    writer = await createImageWriter({
      store,
      prefix,
      numShards: request.numShards ?? job.config.numShards,
      codec: CODECS[request.cpuBudget ?? job.config.cpuBudget],
      ...(job.keys === undefined ? {} : { keys: job.keys }),
    });
    // Before anything is frozen: what comes now needs other code than what was, and memory of its own.
    unmapIdleCode();
    const { signal, callOff } = calling;
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
      callOff,
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
    const cleared = clearAway(job, store, writer, prefix);
    if (calling.signal.aborted) await orTooLong(job, cleared);
    else await cleared;
    throw error;
  } finally {
    calling.close();
    job.announcePrefix(null, url);
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Never rejects: the checkpoint has failed already, and for another reason. */
async function clearAway(
  job: CheckpointJob,
  store: Store,
  writer: ImageWriter | undefined,
  prefix: string,
): Promise<void> {
  try {
    await writer?.abort();
    await removeUncommitted(store, prefix);
  } catch (error) {
    job.log.debug(`objects of the failed checkpoint stay behind: ${asFastFreezeError(error, 'clean up').message}`);
  }
}

/** The store may hang, and the next checkpoint waits for the end of this one. What is not removed in time, pruning removes. */
async function orTooLong(job: CheckpointJob, cleared: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      job.log.debug(
        'the store does not answer: objects of the checkpoint that was called off stay until they are pruned',
      );
      resolve();
    }, CLEAR_TIMEOUT_MS);
  });
  await Promise.race([cleared, late]);
  clearTimeout(timer);
}

const CLEAR_TIMEOUT_MS = 10_000;

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
