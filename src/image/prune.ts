// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { ObjectInfo, Store } from '../store/store.js';
import { listGenerations, readManifest } from './generations.js';
import { readLease } from './lease-holder.js';
import type { Manifest } from './manifest.js';
import { manifestName, parseIndexName, parseShardName } from './names.js';

export interface PruneOptions {
  /** Objects of an image that no manifest names may belong to one that is being written: they stay this long. */
  readonly graceMs?: number;
  readonly nowMs?: number;
  /** Of the generations beyond the newest `keep`, only those that are older than this. */
  readonly olderThanMs?: number;
  /** Say what would go; remove nothing. */
  readonly dryRun?: boolean;
}

export interface PruneResult {
  readonly generations: number[];
  /** Shards and indexes. */
  readonly objects: string[];
  /** Bytes of those. */
  readonly removedBytes: number;
}

const DEFAULT_GRACE_MS = 24 * 3600 * 1000;

/**
 * Keep the newest `keep` generations (at least one) and what they need; remove older manifests first, then the
 * indexes and shards that nothing names any more. Killed in between, it leaves objects without a manifest, never a
 * manifest without its objects. Where nothing can be removed: `unsupported`.
 */
export async function pruneGenerations(store: Store, keep: number, options: PruneOptions = {}): Promise<PruneResult> {
  if (store.writeOnce !== undefined) throw removesByItself(store);
  // While somebody has the lease, a checkpoint may be under way: then nothing shortens the grace.
  const leastMs = (await readLease(store)).held ? DEFAULT_GRACE_MS : 0;
  const graceMs = Math.max(options.graceMs ?? DEFAULT_GRACE_MS, leastMs);
  const nowMs = options.nowMs ?? Date.now();
  const generations = await listGenerations(store);
  const beyond = generations.slice(0, -Math.max(1, keep));
  const dropped =
    options.olderThanMs === undefined ? beyond : await olderThan(store, beyond, nowMs - options.olderThanMs);
  const kept = generations.filter((generation) => !dropped.includes(generation));
  // Read before anything is removed: one that cannot be read hides what it needs, and then nothing may go.
  const needed = neededBy(await readAll(store, kept));
  const droppedPrefixes = new Set<string>();
  for (const generation of dropped)
    for (const prefix of await prefixesOf(store, generation)) droppedPrefixes.add(prefix);

  const remove = options.dryRun === true ? () => Promise.resolve() : (name: string) => store.remove(name);
  for (const generation of dropped) await remove(manifestName(generation));

  const objects: string[] = [];
  let removedBytes = 0;
  const there = byPrefix(await store.list(''));
  // What was committed since the first look is old too where its checkpoint took long, and needed all the same.
  const later = (await listGenerations(store)).filter((generation) => !generations.includes(generation));
  for (const name of neededBy(await readAll(store, later))) needed.add(name);
  for (const [prefix, members] of there) {
    const youngestMs = Math.max(...members.map((member) => member.modifiedAtMs));
    const old = youngestMs <= nowMs - graceMs;
    const known = droppedPrefixes.has(prefix) || members.some((member) => needed.has(member.name));
    if (!old && !known) continue;
    for (const { name, sizeBytes } of members) {
      if (needed.has(name)) continue;
      await remove(name);
      objects.push(name);
      removedBytes += sizeBytes;
    }
  }
  if (options.dryRun !== true) await store.sweepUnfinished(() => true, graceMs);
  return { generations: dropped, objects, removedBytes };
}

/**
 * Remove what an image that was never committed left, unless a manifest needs it after all. Returns the names. Where
 * writes arrive late, a complete image stays until it is old: its manifest may be on its way, and must not come to stand
 * there without it. Where nothing can be removed, all stays until it goes by itself.
 */
export async function removeUncommitted(store: Store, prefix: string): Promise<string[]> {
  if (store.writeOnce !== undefined) return [];
  const needed = neededBy(await readAll(store, await listGenerations(store)));
  const members = byPrefix(await store.list(prefix)).get(prefix) ?? [];
  const mayBeCommitted = store.writesArriveLate && members.some(({ name }) => parseIndexName(name) !== undefined);
  const objects = mayBeCommitted ? [] : members.map((member) => member.name).filter((name) => !needed.has(name));
  for (const name of objects) await store.remove(name);
  // Manifests, hints and probes name no image. One that another machine writes at this instant is written again there.
  await store.sweepUnfinished((name) => (prefixOf(name) ?? prefix) === prefix, 0);
  return objects;
}

function removesByItself(store: Store): FastFreezeError {
  return new FastFreezeError({
    code: 'unsupported',
    op: 'prune',
    subject: store.url,
    reason: 'a cache removes what was not used for a week, or for longest when it is full, and nothing before',
    hint: "'gh cache delete KEY' removes an entry at once",
  });
}

/** Those of the generations that were made before a time. One whose manifest cannot be read has its object's age. */
async function olderThan(store: Store, generations: readonly number[], beforeMs: number): Promise<number[]> {
  const modifiedAtMs = new Map((await store.list('manifest-')).map((object) => [object.name, object.modifiedAtMs]));
  const older: number[] = [];
  for (const generation of generations) {
    const createdAtMs = await readManifest(store, generation).then(
      (manifest) => Date.parse(manifest.createdAt),
      () => modifiedAtMs.get(manifestName(generation)) ?? Infinity,
    );
    if (createdAtMs < beforeMs) older.push(generation);
  }
  return older;
}

async function readAll(store: Store, generations: readonly number[]): Promise<Manifest[]> {
  const manifests: Manifest[] = [];
  for (const generation of generations) manifests.push(await readManifest(store, generation));
  return manifests;
}

function neededBy(manifests: readonly Manifest[]): Set<string> {
  const needed = new Set<string>();
  for (const { image } of manifests) {
    if (image === undefined) continue;
    needed.add(image.index.name);
    for (const shard of image.shards) needed.add(shard.name);
  }
  return needed;
}

/** Of a manifest that goes. One that cannot be read names nothing: its objects then wait for the grace period. */
async function prefixesOf(store: Store, generation: number): Promise<string[]> {
  try {
    const { image } = await readManifest(store, generation);
    if (image === undefined) return [];
    return [image.prefix, ...image.shards.map((shard) => parseShardName(shard.name)?.prefix ?? image.prefix)];
  } catch {
    return [];
  }
}

function byPrefix(objects: readonly ObjectInfo[]): Map<string, ObjectInfo[]> {
  const groups = new Map<string, ObjectInfo[]>();
  for (const object of objects) {
    const prefix = prefixOf(object.name);
    if (prefix === undefined) continue;
    const group = groups.get(prefix) ?? [];
    group.push(object);
    groups.set(prefix, group);
  }
  return groups;
}

function prefixOf(name: string): string | undefined {
  return parseShardName(name)?.prefix ?? parseIndexName(name);
}
