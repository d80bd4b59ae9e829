// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { type OpenOptions, type Store, listJobs, openStore } from '../store/store.js';
import { LEASE_NAME } from '../store/lease/record.js';
import { listGenerations, readManifest } from './generations.js';
import { type LeaseHolder, readLease } from './lease-holder.js';
import type { Manifest } from './manifest.js';
import { parseManifestName } from './names.js';

export interface CatalogGeneration {
  readonly generation: number;
  readonly state: Manifest['state'] | 'damaged';
  /** Null when the manifest cannot be read. */
  readonly createdAt: string | null;
  readonly host: string | null;
  /** Bytes of memory and state; null when damaged or finished. */
  readonly rawBytes: number | null;
  /** Bytes that this generation needs in the store, those that it shares with others too. */
  readonly storedBytes: number | null;
  /** What is wrong with a damaged one. */
  readonly reason?: string;
}

export interface CatalogJob {
  readonly url: string;
  /** Of the newest generation. */
  readonly state: CatalogGeneration['state'];
  /** Who runs it, or died doing so: who has its lease. */
  readonly holder: LeaseHolder | null;
  /** Everything of ours that lies there. */
  readonly sizeBytes: number;
  /** The oldest first. */
  readonly generations: readonly CatalogGeneration[];
}

export interface Catalog {
  readonly jobs: readonly CatalogJob[];
  readonly unread: readonly { readonly url: string; readonly reason: string }[];
}

/** The jobs at and below a URL. */
export async function readCatalog(url: string, options: OpenOptions = {}): Promise<Catalog> {
  const found = await findJobs(url, options);
  const jobs = new Array<CatalogJob | undefined>(found.urls.length);
  const failures: { readonly url: string; readonly error: FastFreezeError }[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let at = next++; at < found.urls.length; at = next++) {
      const url = found.urls[at] ?? '';
      try {
        jobs[at] = await readJob(openStore(url, options));
      } catch (error) {
        if (!(error instanceof FastFreezeError)) throw error;
        failures.push({ url, error });
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: JOBS_AT_A_TIME }, work));
  } finally {
    next = found.urls.length;
  }
  const [first] = failures;
  // One job that cannot be read hides no other; when none can, it is not the jobs.
  if (first !== undefined && failures.length === found.urls.length) throw first.error;
  const unread = failures.map(({ url, error }) => ({ url, reason: error.reason }));
  return { jobs: jobs.filter((job) => job !== undefined), unread: [...found.unread, ...unread].sort(byUrl) };
}

/** Each is a few requests one after the other, and a cloud answers each after a while. */
const JOBS_AT_A_TIME = 8;

function byUrl(one: { readonly url: string }, other: { readonly url: string }): number {
  return one.url < other.url ? -1 : 1;
}

export async function findJobs(url: string, options: OpenOptions = {}): ReturnType<typeof listJobs> {
  return await listJobs(url, (name) => parseManifestName(name) !== undefined, options);
}

/** Undefined when its last generation has gone meanwhile. */
async function readJob(store: Store): Promise<CatalogJob | undefined> {
  const generations: CatalogGeneration[] = [];
  for (const generation of await listGenerations(store)) {
    const one = await readGeneration(store, generation);
    if (one !== undefined) generations.push(one);
  }
  const newest = generations.at(-1);
  if (newest === undefined) return undefined;
  if (store.writeOnce !== undefined) {
    // It does not tell what else lies there, and nobody has a lease.
    const sizeBytes = generations.reduce((sum, { storedBytes }) => sum + (storedBytes ?? 0), 0);
    return { url: store.url, state: newest.state, holder: null, sizeBytes, generations };
  }
  const objects = await store.list('');
  const sizeBytes = objects.reduce((sum, object) => sum + (isOurs(object.name) ? object.sizeBytes : 0), 0);
  const hasLease = objects.some(({ name }) => name === LEASE_NAME);
  const holder = hasLease ? (await readLease(store)).holder : null;
  return { url: store.url, state: newest.state, holder, sizeBytes, generations };
}

async function readGeneration(store: Store, generation: number): Promise<CatalogGeneration | undefined> {
  try {
    const { state, createdAt, writer, image } = await readManifest(store, generation);
    const stored = image && [image.index, ...image.shards].reduce((sum, object) => sum + object.sizeBytes, 0);
    return {
      generation,
      state,
      createdAt,
      host: writer.host,
      rawBytes: image?.rawBytes ?? null,
      storedBytes: stored ?? null,
    };
  } catch (error) {
    if (!(error instanceof FastFreezeError)) throw error;
    // Pruned between the listing and now.
    if (error.code === 'not-found') return undefined;
    const unknown = { createdAt: null, host: null, rawBytes: null, storedBytes: null };
    return { generation, state: 'damaged', ...unknown, reason: error.reason };
  }
}

function isOurs(name: string): boolean {
  return name === LEASE_NAME || /\.(ffs|ffi)$|^manifest(-\d+)?\.json$/.test(name);
}
