// SPDX-License-Identifier: Apache-2.0
import { unlink, writeFile } from 'node:fs/promises';
import { uptime } from 'node:os';
import { FastFreezeError } from '../../base/errors.js';
import type { OpenOptions } from '../object/client-loader.js';
import { assertName, notFound, storeError, truncated } from '../store-error.js';
import type { ObjectInfo, Store, StoreReader } from '../store.js';
import { sharedAgentPool } from './agent-pool.js';
import { CacheClient } from './cache-client.js';
import { formatCacheUrl, keyPrefix } from './cache-url.js';
import { createCacheWriter, vanished } from './cache-writer.js';
import { type KeyFacts, nameAfter, namesBefore, objectPrefix, onceKey, parseKey } from './keys.js';
import { COMMIT_TIMEOUT_MS, type CacheSettings, refuseReadOnly, refuseWithoutMeans } from './settings.js';
import { type Fetch, StagedObjects } from './staged-objects.js';

/** Each object is staged on disk, and fetched whole to read a byte of it; an upload has a part of 128 MiB at most. */
const OBJECT_BYTES = 64 * 2 ** 20;
/** How far back `list` looks from the newest. */
const MAX_BEFORE = 9;
const SETTLE_POLL_MS = 1_000;
/** Keys of one commit: each that was reserved and never written is lost, by a run that was killed, or by a service that failed then. */
const ATTEMPTS = Array.from({ length: 12 }, (_, i) => i + 1);
/** Of the time for which others wait for an entry that we have begun: they are sure to see one that is there by then. */
const IN_TIME = 0.75;

/** GitHub's Actions cache, by its own client. Entries never change, cannot be removed, and are evicted singly. */
export function createCacheStore(jobName: string, settings: CacheSettings, options: OpenOptions): Store {
  const url = formatCacheUrl(jobName);
  const prefix = keyPrefix(jobName);
  const pool = sharedAgentPool(settings.stagingDirectory);
  const adopt = options.adopt ?? (() => undefined);
  const client = new CacheClient({ url, pool, adopt, ...settings, ...options });
  const staged = new StagedObjects(pool);
  /** Of objects that this store has written: looked up again before a commit. */
  const written = new Map<string, string>();
  let writtenBytes = 0;

  const find = async (name: string): Promise<(KeyFacts & { readonly key: string }) | undefined> => {
    assertName(name);
    refuseWithoutMeans(url, process.env, Date.now());
    const key = await client.lookup(objectPrefix(prefix, name));
    const facts = key === undefined ? undefined : parseKey(prefix, key);
    return key === undefined || facts === undefined ? undefined : { ...facts, key };
  };
  const fetcher =
    (key: string, name: string): Fetch =>
    async (path) => {
      if (!(await client.fetch(key, path))) throw notFound(`${url}/${name}`);
    };
  const saveBytes = async (key: string, bytes: Uint8Array): Promise<'saved' | 'taken'> => {
    const path = await pool.enter();
    try {
      await writeFile(path, bytes, { mode: 0o600 });
      const outcome = await client.save(key, path, COMMIT_TIMEOUT_MS).catch(async (error: unknown) => {
        // Only the answer may have got lost; whose it is, what is there tells.
        if ((await client.lookup(key)) === key) return 'taken' as const;
        throw error;
      });
      if (outcome === 'saved' && (await client.lookup(key)) !== key) throw vanished(key);
      return outcome;
    } finally {
      await unlink(path).catch(() => undefined);
      pool.leave();
    }
  };
  /** Of an object that only one may create: the entry of the highest attempt, which counts, from `attempt` on. */
  const highest = async (name: string, attempt = 1): Promise<string | undefined> => {
    if ((await find(name)) === undefined) return undefined;
    const keys = ATTEMPTS.filter((one) => one >= attempt).map((one) => onceKey(prefix, name, one));
    const there = await Promise.all(keys.map((key) => client.lookup(key)));
    return keys.findLast((key, i) => there[i] === key);
  };
  const locate = async (name: string): Promise<{ readonly key: string; readonly sizeBytes?: number } | undefined> => {
    const found = await find(name);
    if (found === undefined) return undefined;
    if (found.sizeBytes !== undefined) return { key: found.key, sizeBytes: found.sizeBytes };
    return { key: (await highest(name)) ?? found.key };
  };
  const findAfter = async (name: string): Promise<KeyFacts[]> => {
    const found: KeyFacts[] = [];
    for (let next = nameAfter(name); next !== undefined; next = nameAfter(next)) {
      const one = await find(next);
      if (one === undefined) break;
      found.push(one);
    }
    return found;
  };
  const appears = async (name: string, attempt: number): Promise<string | undefined> => {
    const deadlineMs = performance.now() + settings.settleMs;
    for (;;) {
      // The last look begins when the time is up: whoever was in time is seen by it.
      const isLast = performance.now() > deadlineMs;
      const key = await highest(name, attempt);
      if (key !== undefined || isLast) return key;
      await new Promise((resolve) => setTimeout(resolve, SETTLE_POLL_MS));
    }
  };
  const unsupported = (op: string, name: string): Promise<never> => Promise.reject(cannot(op, `${url}/${name}`));

  const store: Store = {
    url,
    writesArriveLate: true,
    joinsAtFinish: false,
    partBytes: undefined,
    writeOnce: { objectBytes: OBJECT_BYTES, totalBytes: settings.totalBytes },

    async prepare() {
      refuseWithoutMeans(url, process.env, Date.now());
      refuseReadOnly(url, process.env);
      // A probe would stay for days: that the service answers to this token has to do.
      await client.lookup(prefix);
      writtenBytes = 0;
      return { fencing: 'atomic' };
    },

    async createWriter(name) {
      assertName(name);
      const count = (bytes: number): void => {
        writtenBytes += bytes;
        if (writtenBytes > settings.totalBytes) throw tooLarge(url, settings.totalBytes);
      };
      return await createCacheWriter({ client, pool, prefix, name, count, finished: (key) => written.set(name, key) });
    },

    async createIfAbsent(name, bytes) {
      assertName(name);
      await refuseEvicted(client, written);
      for (const attempt of ATTEMPTS) {
        const key = onceKey(prefix, name, attempt);
        const elapsedMs = stopwatch();
        // Later, somebody may have waited in vain for what we had begun, and have gone on to the next key: so do we.
        const isInTime = (): boolean => elapsedMs() < settings.settleMs * IN_TIME;
        // Who is late is perhaps so late that a run has gone on from what came instead: that must stay the newest.
        const isPassed = async (): Promise<boolean> => {
          const next = nameAfter(name);
          return next !== undefined && (await find(next)) !== undefined;
        };
        if ((await client.patiently(name, () => saveBytes(key, bytes))) === 'saved') {
          if (isInTime()) return 'created';
          if (await isPassed()) return 'exists';
          continue;
        }
        // A key that is taken belongs to an entry, or to somebody who is writing one, or who died doing so: ourselves perhaps, but that
        // is not known of an attempt that has failed.
        const there = await appears(name, attempt);
        if (there === undefined) continue;
        // Where only the last answer got lost, it is ours.
        if (there !== key || !(await holds(store, name, bytes))) return 'exists';
        if (isInTime()) return 'created';
        if (await isPassed()) return 'exists';
      }
      throw reservedOnly(`${url}/${name}`, settings.settleMs);
    },

    put: (name) => unsupported('replace', name),
    readVersion: (name) => unsupported('read the version of', name),
    replace: (name) => unsupported('replace', name),
    remove: (name) => unsupported('remove', name),

    async read(name, offset, into) {
      const reader = await store.openReader(name);
      try {
        await reader.read(offset, into);
      } finally {
        reader.close();
      }
    },

    async openReader(name) {
      const found = await locate(name);
      if (found === undefined) throw notFound(`${url}/${name}`);
      const fetch = fetcher(found.key, name);
      const sizeBytes = found.sizeBytes ?? (await staged.size(found.key, fetch));
      return openCacheReader({ staged, key: found.key, subject: `${url}/${name}`, fetch, sizeBytes });
    },

    async size(name) {
      const found = await locate(name);
      if (found === undefined || found.sizeBytes !== undefined) return found?.sizeBytes;
      const sizeBytes = await staged.size(found.key, fetcher(found.key, name));
      staged.drop(found.key);
      return sizeBytes;
    },

    async list(wanted) {
      refuseWithoutMeans(url, process.env, Date.now());
      const key = await client.lookup(prefix + wanted);
      const newest = key === undefined ? undefined : parseKey(prefix, key);
      if (newest === undefined) return [];
      // The one that was written last: by a writer that was late there may be others after it.
      const after = await findAfter(newest.name);
      const last = after.at(-1) ?? newest;
      const before = namesBefore(last.name, MAX_BEFORE).filter((name) => name.startsWith(wanted));
      const known = [newest, ...after];
      const others = before.filter((name) => known.every((one) => one.name !== name));
      const found = await Promise.all(others.map((name) => find(name)));
      const all = [...known, ...found].filter((one) => one !== undefined);
      return all.map(asInfo).sort((one, other) => (one.name < other.name ? -1 : 1));
    },

    sweepUnfinished: () => Promise.resolve(0),
  };
  return store;
}

/** Nobody is told when an entry came, nor how large one is that has no size in its key. */
function asInfo({ name, sizeBytes }: KeyFacts): ObjectInfo {
  return { name, sizeBytes: sizeBytes ?? 0, modifiedAtMs: 0 };
}

interface ReaderOptions {
  readonly staged: StagedObjects;
  readonly key: string;
  readonly subject: string;
  readonly fetch: Fetch;
  readonly sizeBytes: number;
}

function openCacheReader({ staged, key, subject, fetch, sizeBytes }: ReaderOptions): StoreReader {
  let isClosed = false;
  return {
    sizeBytes,
    async read(offset, into) {
      if (isClosed) throw new FastFreezeError({ code: 'aborted', op: 'read', subject, reason: 'closed' });
      if (into.length === 0) return;
      if (offset + into.length > sizeBytes) throw truncated(subject, offset + into.length, sizeBytes);
      await staged.read(key, fetch, offset, into);
    },
    close() {
      if (!isClosed) staged.drop(key);
      isClosed = true;
    },
  };
}

/** GitHub removes what was not used for longest when a repository has too much: that may be this very image's beginning. */
async function refuseEvicted(client: CacheClient, written: ReadonlyMap<string, string>): Promise<void> {
  const there = await Promise.all([...written.values()].map((key) => client.lookup(key)));
  const at = [...written].findIndex(([, key], i) => there[i] !== key);
  if (at === -1) return;
  throw new FastFreezeError({
    code: 'store',
    op: 'commit the image with',
    subject: [...written.keys()][at] ?? '',
    reason: "GitHub's cache has evicted it already: the repository has more in it than its limit",
    hint: "free room with 'gh cache delete', raise the limit in the repository's settings, or use --image-url s3://...",
  });
}

/** Milliseconds from now on, those included in which this process was stopped, or its machine asleep. */
function stopwatch(): () => number {
  const [bootMs, wallMs] = [uptime() * 1000, Date.now()];
  return () => Math.max(uptime() * 1000 - bootMs, Date.now() - wallMs);
}

async function holds(store: Store, name: string, bytes: Uint8Array): Promise<boolean> {
  const reader = await store.openReader(name);
  try {
    if (reader.sizeBytes !== bytes.length) return false;
    const found = Buffer.alloc(bytes.length);
    await reader.read(0, found);
    return found.equals(bytes);
  } catch (error) {
    throw storeError(error, 'read', name);
  } finally {
    reader.close();
  }
}

function reservedOnly(subject: string, settleMs: number): FastFreezeError {
  return new FastFreezeError({
    code: 'store',
    op: 'create',
    subject,
    reason: `all its keys are reserved by runs that have not finished within ${settleMs / 1000} s: they were killed, or the service failed, at their commit`,
    hint: 'GitHub frees such keys after a while; until then use another --image-url',
  });
}

function tooLarge(url: string, totalBytes: number): FastFreezeError {
  return new FastFreezeError({
    code: 'store',
    op: 'write to',
    subject: url,
    reason: `the image is larger than the ${Number((totalBytes / 2 ** 30).toFixed(3))} GB that a repository's cache holds`,
    hint: 'use --cpu-budget high, or --image-url s3://...; FF_CACHE_LIMIT_GB where the repository has more',
  });
}

function cannot(op: string, subject: string): FastFreezeError {
  return new FastFreezeError({
    code: 'unsupported',
    op,
    subject,
    reason: "entries of GitHub's cache never change, and cannot be removed from here",
    hint: "they go by themselves when they were not used for a week; 'gh cache delete' removes them at once",
  });
}
