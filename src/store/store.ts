// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { openCacheStore } from './cache/open.js';
import { createFileStore } from './file-store.js';
import { parseFileUrl } from './file-url.js';
import { refuseForeignCommand } from './foreign-commands.js';
import { type FoundJobs, findJobsBelow } from './jobs.js';
import { lazyStore } from './lazy-store.js';
import { formatBucketUrl, parseBucketUrl } from './object/bucket-url.js';
import { type OpenOptions, clientLoader } from './object/client-loader.js';
import { findJobsInBucket } from './object/find-jobs.js';
import type { ObjectVersion } from './object/object-client.js';
import { createObjectStore } from './object/object-store.js';

export type { OpenOptions } from './object/client-loader.js';

export interface ObjectInfo {
  readonly name: string;
  readonly sizeBytes: number;
  /** When it appeared or was last written, by the store's clock. */
  readonly modifiedAtMs: number;
}

/** Whether `createIfAbsent` holds against twins that write at the same instant, or is only as good as looking first. */
export type Fencing = 'atomic' | 'best-effort';

/** What a place asks of its users whose objects can be neither replaced nor removed, nor all be listed: a CI cache. */
export interface WriteOnce {
  /** Whoever writes much begins a new object at this size. */
  readonly objectBytes: number;
  /** What all objects of one image may have. */
  readonly totalBytes: number;
}

export interface CreateOptions {
  /** Heard where a request may be tried again and again, or has to wait for another step. */
  readonly signal?: AbortSignal;
}

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
  /**
   * Whether finishing an object takes the longer the more it holds, since the service joins its parts then. Whoever writes
   * much finishes some objects while it still writes others.
   */
  readonly joinsAtFinish: boolean;
  /**
   * What a writer keeps in memory before it sends it, in bytes; undefined where nothing is kept. Whoever writes several
   * objects side by side fills such a part of one before he goes on with another: memory serves better what is on its way.
   */
  readonly partBytes: number | undefined;
  /**
   * Undefined for all but a CI cache, where objects go singly whenever its owner wants: there `put`, `readVersion`, `replace`
   * and `remove` are `unsupported`, and `list` finds the newest object and, where its name ends in a number, some of those
   * before it, without times, and without sizes of those that were made by `createIfAbsent`.
   */
  readonly writeOnce: WriteOnce | undefined;
  /** Make the place and prove that it can be written, so that a checkpoint fails before it freezes anything. */
  prepare(): Promise<{ readonly fencing: Fencing }>;
  /** Begin an object that appears under `name` only at `finish()`, replacing what may stand there. */
  createWriter(name: string): Promise<StoreWriter>;
  /**
   * THE commit primitive: of any number of callers, on any machines, exactly one gets `created` for a name. Whoever loses the
   * right to it aborts the signal: it is not tried again then. It rejects, and what was on its way may still arrive; asked again
   * with the same bytes, it tells.
   */
  createIfAbsent(name: string, bytes: Uint8Array, options?: CreateOptions): Promise<'created' | 'exists'>;
  /** Replace atomically: a reader sees the old bytes or the new, whole. For hints only. */
  put(name: string, bytes: Uint8Array): Promise<void>;
  /** A small object with the mark of this version of it, for `replace`; undefined when there is none. Over 64 KiB: `image`. */
  readVersion(name: string): Promise<ObjectVersion | undefined>;
  /**
   * Write a small object only if it is still `version` (undefined: if there is none); of any number of callers that name
   * the same version exactly one succeeds. Resolves to the new version, or undefined when it had changed.
   */
  replace(name: string, bytes: Uint8Array, version: string | undefined): Promise<string | undefined>;
  /** Fill `into` from `offset`. Missing: `not-found`; ends before `into` is full: `image` (truncated). */
  read(name: string, offset: number, into: Uint8Array): Promise<void>;
  /**
   * For many reads of one object. Missing: `not-found`, told here or, by whoever gave the size and so saved a question to the
   * store, at the first read.
   */
  openReader(name: string, sizeBytes?: number): Promise<StoreReader>;
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

/** The store behind `file:/abs/path`, a plain `/abs/path`, `s3://bucket/path`, `gs://bucket/path` or `cache:name`. Touches nothing yet. */
export function openStore(url: string, options: OpenOptions = {}): Store {
  const scheme = schemeOf(url);
  if (isFileUrl(url)) return createFileStore(parseFileUrl(url));
  if (scheme === 'cache') return openCacheStore(url, options);
  if (scheme === 's3' || scheme === 'gs') {
    refuseForeignCommand(url, process.env);
    const place = parseBucketUrl(url);
    const load = clientLoader({ scheme, place }, options);
    return lazyStore(formatBucketUrl(scheme, place), scheme === 's3', async () => createObjectStore(await load()));
  }
  throw refuse(url, unusable(scheme), 'give an absolute path, such as file:/var/lib/jobs/my-job');
}

/** Places of jobs at and below a URL: those with an object whose name `marks` accepts. No such place: `not-found`. */
export async function listJobs(
  url: string,
  marks: (name: string) => boolean,
  options: OpenOptions = {},
): Promise<FoundJobs> {
  if (isFileUrl(url)) return await findJobsBelow(parseFileUrl(url), marks);
  const scheme = schemeOf(url);
  if (scheme === 'cache') return await findCacheJob(url, marks, options);
  if (scheme !== 's3' && scheme !== 'gs') throw refuse(url, unusable(scheme), 'give s3://BUCKET/PATH or file:/PATH');
  refuseForeignCommand(url, process.env);
  const where = { scheme, place: parseBucketUrl(url, 'place of jobs') } as const;
  return await findJobsInBucket(await clientLoader(where, options)(), where, marks);
}

/** A cache tells of a job only to who knows its name. */
async function findCacheJob(url: string, marks: (name: string) => boolean, options: OpenOptions): Promise<FoundJobs> {
  const store = openCacheStore(url, options);
  const isJob = (await store.list('manifest-')).some(({ name }) => marks(name));
  return { urls: isJob ? [store.url] : [], unread: [] };
}

function schemeOf(url: string): string | undefined {
  return /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(url)?.[1]?.toLowerCase();
}

/** A directory of this machine's, or one that is mounted here. */
export function isFileUrl(url: string): boolean {
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
