// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { createFileStore } from './file-store.js';
import { parseFileUrl } from './file-url.js';
import { type FoundJobs, findJobsBelow } from './jobs.js';
import { lazyStore } from './lazy-store.js';
import { formatBucketUrl, parseBucketUrl } from './object/bucket-url.js';
import { createObjectStore } from './object/object-store.js';
import { readRateLimit, withRateLimit } from './object/rate-limit.js';
import { readRetrySettings, withRetries } from './object/retry.js';
import { readS3Settings } from './s3/s3-settings.js';

export interface ObjectInfo {
  readonly name: string;
  readonly sizeBytes: number;
  /** When it appeared or was last written, by the store's clock. */
  readonly modifiedAtMs: number;
}

/** Whether `createIfAbsent` holds against twins that write at the same instant, or is only as good as looking first. */
export type Fencing = 'atomic' | 'best-effort';

/**
 * Bytes by name, in one flat place per job. Knows nothing of what the bytes mean.
 *
 * An object appears whole or not at all, never changes once it is there (except by `put`), and is durable when the
 * call that made it resolves. Names are 1 to 200 bytes of `A-Z a-z 0-9 . _ -`, not starting with a dot; others are an
 * `internal` error. Every failure is a FastFreezeError: `store` unless a method says otherwise.
 */
export interface Store {
  /** How a user would name this place; `openStore(url)` finds it again. */
  readonly url: string;
  /** Whether a write that was given up, or whose writer is dead, can still take effect later: the service may have it. */
  readonly writesArriveLate: boolean;
  /** Make the place and prove that it can be written, so that a checkpoint fails before it freezes anything. */
  prepare(): Promise<{ readonly fencing: Fencing }>;
  /** Begin an object that appears under `name` only at `finish()`, replacing what may stand there. */
  createWriter(name: string): Promise<StoreWriter>;
  /** THE commit primitive: of any number of callers, on any machines, exactly one gets `created` for a name. */
  createIfAbsent(name: string, bytes: Uint8Array): Promise<'created' | 'exists'>;
  /** Replace atomically: a reader sees the old bytes or the new, whole. For hints only. */
  put(name: string, bytes: Uint8Array): Promise<void>;
  /** Fill `into` from `offset`. Missing: `not-found`; ends before `into` is full: `image` (truncated). */
  read(name: string, offset: number, into: Uint8Array): Promise<void>;
  /** For many reads of one object. Missing: `not-found`. */
  openReader(name: string): Promise<StoreReader>;
  /** Bytes of an object, or undefined when there is none. */
  size(name: string): Promise<number | undefined>;
  /** Objects whose name starts with `prefix`, by name. What is not finished is not listed; no such place: empty. */
  list(prefix: string): Promise<ObjectInfo[]>;
  /** Idempotent: removing what is not there is no error. */
  remove(name: string): Promise<void>;
  /**
   * Remove what killed writers left of objects whose name `isMeant` accepts (temporary files, unfinished uploads), if
   * it has been idle for `idleMs`. Returns how many.
   */
  sweepUnfinished(isMeant: (name: string) => boolean, idleMs: number): Promise<number>;
}

export interface StoreWriter {
  /** Add at the end. Calls need not wait for each other and keep their order; `parts` may be reused once it resolves. */
  append(parts: readonly Uint8Array[]): Promise<void>;
  /** Waits for every append, makes the bytes durable, then shows them under the name. */
  finish(): Promise<void>;
  /** Leaves nothing. Safe after any failure, and twice; never throws. */
  abort(): Promise<void>;
}

export interface StoreReader {
  readonly sizeBytes: number;
  /** As `Store.read`. Any number may run at once. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** Reads under way still end. Idempotent. */
  close(): void;
}

/** The store behind `file:/abs/path`, a plain `/abs/path`, `s3://bucket/path` or `gs://bucket/path`. Touches nothing yet. */
export function openStore(url: string): Store {
  const scheme = schemeOf(url);
  if (isFileUrl(url)) return createFileStore(parseFileUrl(url));
  if (scheme === 's3') {
    const place = parseBucketUrl(url);
    const settings = readS3Settings(process.env);
    const retries = readRetrySettings(process.env);
    const rate = readRateLimit(process.env);
    return lazyStore(formatBucketUrl('s3', place), async () => {
      const { createS3Client } = await import('./s3/s3-client.js');
      return createObjectStore(withRetries(withRateLimit(createS3Client(place, settings), rate), retries));
    });
  }
  if (scheme === 'gs') {
    const place = parseBucketUrl(url);
    const retries = readRetrySettings(process.env);
    const rate = readRateLimit(process.env);
    return lazyStore(formatBucketUrl('gs', place), async () => {
      const { createGsClient } = await import('./gs/gs-client.js');
      return createObjectStore(withRetries(withRateLimit(createGsClient(place, process.env), rate), retries));
    });
  }
  throw refuse(url, unusable(scheme), 'give an absolute path, such as file:/var/lib/jobs/my-job');
}

/** Places of jobs at and below a URL: those with an object whose name `marks` accepts. No such place: `not-found`. */
export async function listJobs(url: string, marks: (name: string) => boolean): Promise<FoundJobs> {
  if (isFileUrl(url)) return await findJobsBelow(parseFileUrl(url), marks);
  // A mistake in the URL is told first.
  openStore(url);
  throw refuse(url, 'jobs in a bucket cannot be listed yet', 'name the URL of one job, with inspect or verify');
}

function schemeOf(url: string): string | undefined {
  return /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(url)?.[1]?.toLowerCase();
}

function isFileUrl(url: string): boolean {
  const scheme = schemeOf(url);
  return scheme === 'file' || (scheme === undefined && url.startsWith('/'));
}

function refuse(url: string, reason: string, hint: string): FastFreezeError {
  return new FastFreezeError({ code: 'usage', op: 'use the image URL', subject: JSON.stringify(url), reason, hint });
}

function unusable(scheme: string | undefined): string {
  if (scheme === undefined) return 'it is neither a URL nor an absolute path';
  return `${scheme}: is not a kind of store`;
}
