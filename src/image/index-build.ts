// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import type { Store } from '../store/store.js';
import type { ChunkSink } from './chunk-sink.js';
import type { FileWriter } from './image-file-writer.js';
import { EXTENT_WORDS, type ImageIndex, type IndexedFile, type IndexedShard, encodeIndex } from './index-format.js';
import { loadAead } from '../linux/aead.js';
import type { ImageKeys } from './keys.js';
import { TAG_BYTES } from './layout.js';
import type { SealedImage } from './manifest.js';
import { indexName } from './names.js';

/** The index of an image whose last chunk is stored. Appends to `shards` those that it borrows from. */
export function buildIndex(
  written: readonly FileWriter[],
  sink: ChunkSink,
  shards: IndexedShard[],
  previous: ImageIndex | undefined,
): ImageIndex {
  adoptBorrowed(sink, shards, previous);
  const files = new Map<string, IndexedFile>();
  const extents = new Uint32Array(written.reduce((sum, file) => sum + file.extents.length, 0));
  let at = 0;
  for (const file of written) {
    const extentCount = file.extents.length / EXTENT_WORDS;
    files.set(file.name, { sizeBytes: file.sizeBytes, firstExtent: at / EXTENT_WORDS, extentCount });
    extents.set(file.extents, at);
    for (const end = at + file.extents.length; at < end; at += EXTENT_WORDS) {
      extents[at] = sink.chunkOf(extents[at] ?? 0);
    }
  }
  return { hashSeed: sink.hashSeed, shards, chunks: sink.chunks, files, extents };
}

/** Store an index; it is durable and visible when this resolves. */
export async function storeIndex(
  store: Store,
  prefix: string,
  index: ImageIndex,
  keys: ImageKeys | undefined,
): Promise<SealedImage['index']> {
  const name = indexName(prefix);
  const bytes = await encrypted(encodeIndex(index), prefix, keys);
  const writer = await store.createWriter(name);
  try {
    await writer.append([bytes]);
    await writer.finish();
  } catch (error) {
    await writer.abort();
    throw error;
  }
  return { name, sizeBytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
}

async function encrypted(plain: Buffer, prefix: string, keys: ImageKeys | undefined): Promise<Buffer> {
  if (keys === undefined) return plain;
  const bytes = Buffer.concat([plain, Buffer.alloc(TAG_BYTES)]);
  await loadAead().seal(keys.forIndex(prefix), bytes.subarray(0, plain.length), bytes.subarray(plain.length));
  return bytes;
}

/** Borrowed chunks still say where the previous index has their shard: give them its position in this one. */
function adoptBorrowed(
  { chunks, borrowed }: ChunkSink,
  shards: IndexedShard[],
  previous: ImageIndex | undefined,
): void {
  const positions = new Map<number, number>();
  for (const chunk of borrowed) {
    const place = chunks.place(chunk);
    const shard = previous?.shards[place.shard];
    if (shard === undefined) throw new Error('a borrowed chunk without its shard');
    const position = positions.get(place.shard) ?? shards.push(shard) - 1;
    positions.set(place.shard, position);
    chunks.setPlace(chunk, { shard: position, offset: place.offset });
  }
}
