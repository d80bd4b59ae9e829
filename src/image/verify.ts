// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { Store } from '../store/store.js';
import { createBlockPool } from './blocks.js';
import { ChunkSource } from './chunk-source.js';
import { readManifest } from './generations.js';
import type { ImageIndex } from './index-format.js';
import { CHUNK_HEADER_BYTES } from './layout.js';
import type { ImageKeys } from './keys.js';
import { type Manifest, type ObjectRecord, checkSeal } from './manifest.js';
import { manifestName, shardName } from './names.js';
import { checkShards, readIndex } from './reader.js';

export interface Damage {
  readonly object: string;
  /** Of the damaged chunk in the object; null when the object as a whole is meant. */
  readonly offset: number | null;
  readonly reason: string;
}

export interface Verified {
  readonly generation: number;
  /** Null when the manifest cannot be read. */
  readonly state: Manifest['state'] | null;
  /** Chunks that were read and found right or wrong. */
  readonly chunks: number;
  /** Bytes of shards and index that were read. */
  readonly storedBytes: number;
  readonly rawBytes: number;
  readonly damage: readonly Damage[];
}

/** The keys of an image that is encrypted; undefined for one that is not. A passphrase that is missing or wrong: `key`. */
export type KeysOf = (manifest: Manifest) => Promise<ImageKeys | undefined>;

/** Chunks in flight at a time; each has a block of its own. */
const WORKERS = 4;

/**
 * Read and check all that a restore of this generation would read. What is damaged is collected, not thrown, so that
 * one pass tells all of it; only a store that fails to answer throws.
 */
export async function verifyGeneration(store: Store, generation: number, keysOf?: KeysOf): Promise<Verified> {
  try {
    const manifest = await readManifest(store, generation);
    return await verifyImage(store, manifest, await keysOf?.(manifest));
  } catch (error) {
    const damage = [asDamage(error, manifestName(generation), null)];
    return { generation, state: null, chunks: 0, storedBytes: 0, rawBytes: 0, damage };
  }
}

/** The same for an image whose manifest is known, committed or not. */
export async function verifyImage(store: Store, manifest: Manifest, keys?: ImageKeys): Promise<Verified> {
  const { generation, state, image } = manifest;
  if (image === undefined) return { generation, state, chunks: 0, storedBytes: 0, rawBytes: 0, damage: [] };
  const damage: Damage[] = [];
  try {
    checkSeal(manifest, keys, manifestName(generation));
  } catch (error) {
    // Nothing that it says is to be used.
    damage.push(asDamage(error, manifestName(generation), null));
    return { generation, state, chunks: 0, storedBytes: 0, rawBytes: 0, damage };
  }
  const present = new Map<string, number>();
  for (const object of [image.index, ...image.shards]) {
    const sizeBytes = await store.size(object.name);
    present.set(object.name, sizeBytes ?? 0);
    const reason = wrongSize(object, sizeBytes);
    if (reason !== undefined) damage.push({ object: object.name, offset: null, reason });
  }
  let index: ImageIndex;
  try {
    index = await readIndex(store, image, keys);
    checkShards(image, index);
  } catch (error) {
    const found = asDamage(error, image.index.name, null);
    if (!damage.some((one) => one.object === image.index.name)) damage.push(found);
    return { generation, state, chunks: 0, storedBytes: 0, rawBytes: 0, damage };
  }
  const read = await verifyChunks(store, index, keys, present, damage);
  damage.sort((one, other) => compare(one.object, other.object) || (one.offset ?? -1) - (other.offset ?? -1));
  return { generation, state, ...read, storedBytes: read.storedBytes + image.index.sizeBytes, damage };
}

async function verifyChunks(
  store: Store,
  index: ImageIndex,
  keys: ImageKeys | undefined,
  present: ReadonlyMap<string, number>,
  damage: Damage[],
): Promise<{ chunks: number; storedBytes: number; rawBytes: number }> {
  const { chunks } = index;
  const source = new ChunkSource(store, index, createBlockPool({ fileBlocks: WORKERS, storedBlocks: WORKERS }), keys);
  const blocks = createBlockPool({ fileBlocks: WORKERS }).file;
  const total = { chunks: 0, storedBytes: 0, rawBytes: 0 };
  // In the order of the shards, so that storage is read front to back.
  const order = Array.from({ length: chunks.length }, (_, chunk) => chunk).sort((one, other) => {
    const [a, b] = [chunks.place(one), chunks.place(other)];
    return a.shard - b.shard || a.offset - b.offset;
  });
  let next = 0;
  const work = async (): Promise<void> => {
    for (let at = next++; at < order.length; at = next++) {
      const chunk = order[at] ?? 0;
      const { shard, offset } = chunks.place(chunk);
      const framedBytes = CHUNK_HEADER_BYTES + chunks.storedBytes(chunk);
      const record = index.shards[shard];
      const name = record === undefined ? `shard ${shard}` : shardName(record.prefix, record.number);
      // Beyond the end of a shard that is known to be cut: one message is enough.
      if (offset + framedBytes > (present.get(name) ?? 0)) continue;
      const block = await blocks.taken();
      try {
        await source.load(chunk, block);
      } catch (error) {
        damage.push(asDamage(error, name, offset));
      } finally {
        blocks.give(block);
      }
      total.chunks++;
      total.storedBytes += framedBytes;
      total.rawBytes += chunks.rawBytes(chunk);
    }
  };
  try {
    await Promise.all(Array.from({ length: WORKERS }, work));
  } finally {
    next = order.length;
    source.close();
  }
  return total;
}

function wrongSize(object: ObjectRecord, present: number | undefined): string | undefined {
  if (present === undefined) return 'it is missing';
  if (present === object.sizeBytes) return undefined;
  return `it has ${present} bytes where ${object.sizeBytes} were written`;
}

function asDamage(error: unknown, object: string, offset: number | null): Damage {
  if (!(error instanceof FastFreezeError) || error.code !== 'image') throw error;
  return { object, offset, reason: error.reason.replace(/^the chunk at offset \d+ is damaged: /, '') };
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
