// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { FastFreezeError } from '../../base/errors.js';
import { assertName, notFound, truncated } from '../store-error.js';
import type { Fencing, Store } from '../store.js';
import type { ObjectClient } from './object-client.js';
import { openObjectReader } from './object-reader.js';
import { createObjectWriter } from './object-writer.js';
import { sharedPartPool } from './part-pool.js';

/** A store in the cloud: everything above single requests, the same for all clouds. */
export function createObjectStore(client: ObjectClient): Store {
  const life = new AbortController();
  const call = { signal: life.signal };
  const parts = sharedPartPool();
  let fencing: Fencing | undefined;
  let replacing: Fencing | undefined;

  const store: Store = {
    url: client.url,
    writesArriveLate: true,
    // Where parts can come side by side, somebody has to join them.
    joinsAtFinish: client.maxParallelParts > 1,
    partBytes: parts.partBytes,
    writeOnce: undefined,

    async prepare() {
      fencing = await probe(client, life.signal);
      return { fencing };
    },

    createWriter(name) {
      assertName(name);
      return createObjectWriter({ client, name, parts });
    },

    async createIfAbsent(name, bytes, options = {}) {
      assertName(name);
      const signal = options.signal === undefined ? life.signal : AbortSignal.any([life.signal, options.signal]);
      fencing ??= await probe(client, signal);
      return fencing === 'atomic'
        ? await createAtomically(client, name, bytes, signal)
        : await createWithLuck(client, name, bytes, signal);
    },

    async put(name, bytes) {
      assertName(name);
      await client.put(name, bytes, { ...call, ifAbsent: false });
    },

    async readVersion(name) {
      assertName(name);
      return await client.getVersion(name, call);
    },

    async replace(name, bytes, version) {
      assertName(name);
      const kept =
        version === undefined
          ? (fencing ??= await probe(client, life.signal))
          : (replacing ??= await probeReplacing(client, life.signal));
      const change = { name, bytes, version, signal: life.signal };
      return kept === 'atomic' ? await replaceAtomically(client, change) : await replaceWithLuck(client, change);
    },

    async read(name, offset, into) {
      assertName(name);
      if (into.length === 0) return;
      const got = await client.get(name, offset, into, call);
      if (got < into.length) throw truncated(`${client.url}/${name}`, offset + into.length, offset + got);
    },

    async openReader(name, sizeBytes) {
      assertName(name);
      if (sizeBytes !== undefined) return openObjectReader(client, name, sizeBytes, life.signal);
      const found = await client.head(name, call);
      if (found === undefined) throw notFound(`${client.url}/${name}`);
      return openObjectReader(client, name, found.sizeBytes, life.signal);
    },

    async size(name) {
      assertName(name);
      return (await client.head(name, call))?.sizeBytes;
    },

    async list(prefix) {
      const found = await client.list(prefix, call);
      return found.sort((one, other) => (one.name < other.name ? -1 : 1));
    },

    async remove(name) {
      assertName(name);
      await client.remove(name, call);
    },

    async sweepUnfinished(isMeant, idleMs) {
      const stale = (await client.listUploads(call)).filter(
        (upload) => isMeant(upload.name) && isIdle(upload.startedAtMs, idleMs),
      );
      for (const upload of stale) await client.abortUpload(upload, call);
      // Never one that may be in use: a twin whose probe went away would take the place for one without conditions.
      const probes = (await client.list(PROBE, call)).filter(
        (one) => isMeant(one.name) && isIdle(one.modifiedAtMs, Math.max(idleMs, PROBE_IDLE_MS)),
      );
      for (const one of probes) await client.remove(one.name, call);
      return stale.length + probes.length;
    },
  };
  return store;
}

/** By the service's clock, which need not be ours: what is meant whatever its age is not asked for it. */
function isIdle(sinceMs: number, idleMs: number): boolean {
  return idleMs === 0 || sinceMs <= Date.now() - idleMs;
}

const PROBE = 'probe-';
const PROBE_IDLE_MS = 3600_000;

/**
 * Prove that the place can be written, and find out whether it keeps the promise of "only if absent": some services
 * answer that they do not know it, and some do not even say so.
 */
async function probe(client: ObjectClient, signal: AbortSignal): Promise<Fencing> {
  const name = `${PROBE}${randomBytes(8).toString('hex')}`;
  const bytes = Buffer.from('probe');
  try {
    await client.put(name, bytes, { signal, ifAbsent: true });
    await client.put(name, bytes, { signal, ifAbsent: true });
    return 'best-effort';
  } catch (error) {
    if (isConflict(error)) return 'atomic';
    if (!isUnknownCondition(error)) throw error;
    await client.put(name, bytes, { signal, ifAbsent: false });
    return 'best-effort';
  } finally {
    // What cannot be removed says so when something that counts is to be removed.
    await client.remove(name, { signal }).catch(() => undefined);
  }
}

/** Likewise for "only if it is still this version", which some services that know the other condition take no notice of. */
async function probeReplacing(client: ObjectClient, signal: AbortSignal): Promise<Fencing> {
  const name = `${PROBE}${randomBytes(8).toString('hex')}`;
  try {
    const first = await client.put(name, Buffer.from('1'), { signal, ifAbsent: false });
    if (first === '') return 'best-effort';
    await client.put(name, Buffer.from('2'), { signal, ifAbsent: false, ifVersion: first });
    await client.put(name, Buffer.from('3'), { signal, ifAbsent: false, ifVersion: first });
    return 'best-effort';
  } catch (error) {
    if (isConflict(error)) return 'atomic';
    if (!isUnknownCondition(error)) throw error;
    return 'best-effort';
  } finally {
    await client.remove(name, { signal }).catch(() => undefined);
  }
}

interface Replacement {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly version: string | undefined;
  readonly signal: AbortSignal;
}

async function replaceAtomically(client: ObjectClient, change: Replacement): Promise<string | undefined> {
  const { name, bytes, version, signal } = change;
  const condition = version === undefined ? { ifAbsent: true } : { ifAbsent: false, ifVersion: version };
  try {
    return await client.put(name, bytes, { signal, ...condition });
  } catch (error) {
    if (!isConflict(error)) throw error;
    // The answer to an earlier try may have got lost: then what stands there is ours.
    return await versionIfOurs(client, change);
  }
}

async function replaceWithLuck(client: ObjectClient, change: Replacement): Promise<string | undefined> {
  const { name, bytes, version, signal } = change;
  // What stands there instead may be ours, of an earlier try whose answer got lost.
  if ((await client.getVersion(name, { signal }))?.version !== version) return await versionIfOurs(client, change);
  await client.put(name, bytes, { signal, ifAbsent: false });
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  return await versionIfOurs(client, change);
}

async function versionIfOurs(client: ObjectClient, { name, bytes, signal }: Replacement): Promise<string | undefined> {
  const found = await client.getVersion(name, { signal });
  return found !== undefined && Buffer.from(found.bytes).equals(bytes) ? found.version : undefined;
}

async function createAtomically(
  client: ObjectClient,
  name: string,
  bytes: Uint8Array,
  signal: AbortSignal,
): Promise<'created' | 'exists'> {
  try {
    await client.put(name, bytes, { signal, ifAbsent: true });
    return 'created';
  } catch (error) {
    if (!isConflict(error)) throw error;
    // A request whose answer got lost was sent again: then what "exists" is our own. No two writers write the same bytes.
    return (await holds(client, name, bytes, signal)) ? 'created' : 'exists';
  }
}

/** Where the service has no such condition: look, write, and look whether it was our bytes that stayed. */
async function createWithLuck(
  client: ObjectClient,
  name: string,
  bytes: Uint8Array,
  signal: AbortSignal,
): Promise<'created' | 'exists'> {
  if ((await client.head(name, { signal })) !== undefined) return 'exists';
  await client.put(name, bytes, { signal, ifAbsent: false });
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  return (await holds(client, name, bytes, signal)) ? 'created' : 'exists';
}

/** Twins that looked at the same instant have written by then. */
const SETTLE_MS = 500;

async function holds(client: ObjectClient, name: string, bytes: Uint8Array, signal: AbortSignal): Promise<boolean> {
  // One byte more than we wrote, so that a longer object is not taken for ours.
  const found = Buffer.alloc(bytes.length + 1);
  const got = await client.get(name, 0, found, { signal }).catch((error: unknown) => {
    // It was removed since: then it was not ours.
    if (error instanceof FastFreezeError && error.code === 'not-found') return -1;
    throw error;
  });
  return got === bytes.length && found.subarray(0, got).equals(bytes);
}

function isConflict(error: unknown): boolean {
  return error instanceof FastFreezeError && error.code === 'conflict';
}

function isUnknownCondition(error: unknown): boolean {
  return error instanceof FastFreezeError && error.code === 'unsupported';
}
