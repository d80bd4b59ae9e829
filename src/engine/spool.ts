// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FastFreezeError } from '../base/errors.js';
import { copyGeneration } from '../image/copy.js';
import { listGenerations, readManifest } from '../image/generations.js';
import type { Manifest } from '../image/manifest.js';
import { manifestName } from '../image/names.js';
import { pruneGenerations } from '../image/prune.js';
import { tryLock } from '../linux/flock.js';
import { nodeCommand } from '../linux/node-command.js';
import { type OpenOptions, type Store, openStore } from '../store/store.js';
import { type CopyPace, parseCopyPace, refineCopyPace } from './pace.js';

/** Where images on their way to `url` wait: a folder of the spool for each destination. */
export function spoolUrl(directory: string, url: string): string {
  const mark = createHash('sha256').update(url).digest('hex').slice(0, 16);
  return `file:${encodeURI(join(directory, `fastfreeze-${mark}`))}`;
}

/**
 * The newest generation of a job, whose images may still wait in a spool on their way to `url`; 0 for none. The spool is
 * looked at first: what leaves it meanwhile is there already.
 */
export async function newestGeneration(
  url: string,
  directory: string | undefined,
  opening: OpenOptions = {},
): Promise<number> {
  const waiting = directory === undefined ? [] : await listGenerations(openStore(spoolUrl(directory, url), opening));
  const there = await listGenerations(openStore(url, opening));
  return Math.max(waiting.at(-1) ?? 0, there.at(-1) ?? 0);
}

function pathOf(directory: string, url: string): string {
  return decodeURI(spoolUrl(directory, url).slice('file:'.length));
}

/** Beside the images: it stays when they have gone. */
function pacePath(directory: string, url: string): string {
  return `${pathOf(directory, url)}.pace`;
}

export interface SpoolJob {
  readonly directory: string;
  readonly url: string;
  readonly keep: number;
  readonly log: (message: string) => void;
}

/** How long `run` waits for an upload that another process has under way. */
const LOCK_TIMEOUT_MS = 3_600_000;
const LOCK_RETRY_MS = 200;

/**
 * Bring everything that waits for `url` there, the oldest first, and clear it from the spool. What is older than the record
 * that the job has finished is only cleared: nobody continues from it.
 */
export async function emptySpool(job: SpoolJob): Promise<void> {
  const from = openStore(spoolUrl(job.directory, job.url));
  if ((await listGenerations(from)).length === 0) return;
  mkdirSync(job.directory, { recursive: true, mode: 0o700 });
  const lockFd = await waitForLock(`${pathOf(job.directory, job.url)}.lock`);
  try {
    const to = openStore(job.url, { onWait: job.log });
    for (const generation of await listGenerations(from)) {
      const manifest = await readManifest(from, generation);
      if (await hasFinishedSince(to, generation)) {
        job.log(`The job has finished since generation ${generation}, which is dropped from the spool`);
      } else await bring(job, from, to, manifest);
      await from.remove(manifestName(generation));
      for (const object of [
        ...(manifest.image?.shards ?? []),
        ...(manifest.image === undefined ? [] : [manifest.image.index]),
      ]) {
        await from.remove(object.name);
      }
    }
    if (to.writeOnce === undefined) await pruneGenerations(to, job.keep);
  } finally {
    closeSync(lockFd);
  }
}

async function bring(job: SpoolJob, from: Store, to: Store, manifest: Manifest): Promise<void> {
  const { generation } = manifest;
  job.log(`Bringing generation ${generation} from the spool to ${job.url}`);
  const startedMs = performance.now();
  const { outcome, copiedBytes } = await copyGeneration(from, to, manifest);
  if (outcome === 'exists') job.log(`Generation ${generation} is there already; the one in the spool is dropped`);
  else noteCopy(job, copiedBytes, performance.now() - startedMs);
}

async function hasFinishedSince(store: Store, generation: number): Promise<boolean> {
  const newest = (await listGenerations(store)).at(-1) ?? 0;
  return newest > generation && (await readManifest(store, newest)).state === 'finished';
}

export interface SpoolState {
  /** What is there, the images' own bytes: on its way, or to be. */
  readonly waitingBytes: number;
  /** Undefined before the first copy out of this spool. */
  readonly pace: CopyPace | undefined;
}

/** What is still to be copied to `url`, and how fast that goes. */
export function readSpool(directory: string, url: string): SpoolState {
  return { waitingBytes: sizeOf(pathOf(directory, url)), pace: readCopyPace(directory, url) };
}

/** Undefined before the first copy, and where nobody can read it: it is advice. */
export function readCopyPace(directory: string, url: string): CopyPace | undefined {
  try {
    return parseCopyPace(JSON.parse(readFileSync(pacePath(directory, url), 'utf8')));
  } catch {
    return undefined;
  }
}

/** Empty the spool in a process that outlives us: the job's machine may have seconds left, the copy needs minutes. */
export function emptySpoolInBackground(job: Omit<SpoolJob, 'log'>, logPath: string): void {
  const output = openSync(logPath, 'a', 0o600);
  const [node, ...flags] = nodeCommand();
  const child = spawn(
    node,
    [...flags, '--no-warnings', fileURLToPath(new URL('./spool-main.js', import.meta.url)), JSON.stringify(job)],
    { detached: true, stdio: ['ignore', output, output] },
  );
  child.once('error', () => undefined);
  child.unref();
  closeSync(output);
}

/** One process copies at a time. What cannot be noted is measured again. */
function noteCopy({ directory, url, log }: SpoolJob, copiedBytes: number, durationMs: number): void {
  const path = pacePath(directory, url);
  try {
    const pace = refineCopyPace(readCopyPace(directory, url), copiedBytes, durationMs);
    writeFileSync(`${path}.new`, JSON.stringify(pace), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  } catch (error) {
    log(`How fast that was is not noted: ${String(error)}`);
  }
}

/** Of files that may go away meanwhile. What cannot be looked at counts for nothing: a freeze must not wait for it. */
function sizeOf(path: string): number {
  try {
    return readdirSync(path, { withFileTypes: true }).reduce((sum, entry) => {
      const below = join(path, entry.name);
      if (entry.isDirectory()) return sum + sizeOf(below);
      return entry.isFile() ? sum + sizeOfFile(below) : sum;
    }, 0);
  } catch {
    return 0; // It is gone, or not ours.
  }
}

function sizeOfFile(path: string): number {
  try {
    return statSync(path).size;
  } catch {
    return 0; // Likewise.
  }
}

async function waitForLock(path: string): Promise<number> {
  const deadlineMs = Date.now() + LOCK_TIMEOUT_MS;
  for (;;) {
    const fd = tryLock(path);
    if (fd !== undefined) return fd;
    if (Date.now() > deadlineMs) {
      throw new FastFreezeError({
        code: 'conflict',
        op: 'empty the spool',
        subject: path,
        reason: 'another process has been copying for over an hour',
        hint: 'see whether it hangs',
      });
    }
    await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
  }
}
