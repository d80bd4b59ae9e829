// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { FastFreezeError } from '../base/errors.js';
import type { Store } from '../store/store.js';
import { type BlockPool, createBlockPool } from './blocks.js';
import { ChunkCache } from './chunk-cache.js';
import { ChunkSource } from './chunk-source.js';
import { FileReader, type FileReaderContext, type ImageFileReader } from './image-file-reader.js';
import { EXTENT_WORDS, type ImageIndex, MAX_INDEX_BYTES, decodeIndex } from './index-format.js';
import { loadAead } from '../linux/aead.js';
import { type ImageKeys, missingPassphrase } from './keys.js';
import { TAG_BYTES } from './layout.js';
import { type Manifest, type SealedImage, checkSeal } from './manifest.js';
import { manifestName, shardName } from './names.js';
import { SliceList } from './pieces.js';

export interface OpenImageOptions {
  readonly store: Store;
  readonly manifest: Manifest;
  readonly blocks?: BlockPool;
  /** Of an encrypted image. */
  readonly keys?: ImageKeys | undefined;
}

/** A committed image, open for reading: any number of files at once, every byte verified before it is handed out. */
export interface ImageReader {
  readonly files: ReadonlyMap<string, { readonly sizeBytes: number }>;
  /** For the writer of the next image, which may reuse chunks of this one. */
  readonly index: ImageIndex;
  /** Undefined when the image has no such file. */
  open(name: string): ImageFileReader | undefined;
  /** A whole file of at most `maxBytes`. Missing: `not-found`; larger: `image`. */
  readAll(name: string, maxBytes: number): Promise<Buffer>;
  /** Some bytes of a file; only the chunks that they lie in are fetched. No such file: `not-found`; not there: `image`. */
  readAt(name: string, offset: number, length: number): Promise<Buffer>;
  /**
   * Check every chunk that no file was read from yet: damage anywhere is damage. `progress` is told, after each, how many
   * bytes this call has found to be right: it may fetch most of the image.
   */
  verifyRest(progress?: (bytes: number) => void): Promise<void>;
  /** No more reads begin; files that are open fail. Idempotent. */
  close(): void;
}

/** Reads and verifies the index, and finds every shard there and of the right size, before anything is restored. */
export async function openImage(options: OpenImageOptions): Promise<ImageReader> {
  const { store, manifest, keys } = options;
  const { image } = manifest;
  checkSeal(manifest, keys, manifestName(manifest.generation));
  if (image === undefined) {
    throw new FastFreezeError({
      code: 'not-found',
      op: 'open the image of',
      subject: `generation ${manifest.generation}`,
      reason: 'the job had finished: there is nothing to restore',
      hint: 'use an older generation (--generation N), if one was kept',
    });
  }
  await Promise.all([image.index, ...image.shards].map((object) => checkSize(store, object)));
  const index = await readIndex(store, image, keys);
  checkShards(image, index);
  const blocks = options.blocks ?? createBlockPool();
  const source = new ChunkSource(store, index, blocks, keys);
  return new Reader({
    index,
    blocks,
    source,
    cache: new ChunkCache(source),
    slices: new SliceList(),
    large: new Set(),
  });
}

class Reader implements ImageReader {
  readonly index: ImageIndex;

  constructor(private readonly context: FileReaderContext) {
    this.index = context.index;
  }

  get files(): ReadonlyMap<string, { readonly sizeBytes: number }> {
    return this.index.files;
  }

  open(name: string): ImageFileReader | undefined {
    const file = this.index.files.get(name);
    return file === undefined ? undefined : new FileReader(name, file, this.context);
  }

  async readAll(name: string, maxBytes: number): Promise<Buffer> {
    const reader = this.open(name);
    const subject = JSON.stringify(name);
    if (reader === undefined) {
      throw new FastFreezeError({ code: 'not-found', op: 'read the file', subject, reason: 'the image has none' });
    }
    try {
      if (reader.sizeBytes > maxBytes) {
        const reason = `it has ${reader.sizeBytes} bytes, at most ${maxBytes} are expected`;
        throw new FastFreezeError({ code: 'image', op: 'read the file', subject, reason });
      }
      const whole = Buffer.alloc(reader.sizeBytes);
      let filled = 0;
      for (let piece = await reader.next(); piece !== undefined; piece = await reader.next()) {
        whole.set(piece.bytes, filled);
        filled += piece.bytes.length;
        piece.release();
      }
      return whole;
    } finally {
      reader.close();
    }
  }

  async readAt(name: string, offset: number, length: number): Promise<Buffer> {
    const file = this.index.files.get(name);
    const refuse = (code: 'not-found' | 'image', reason: string): FastFreezeError =>
      new FastFreezeError({ code, op: 'read the file', subject: JSON.stringify(name), reason });
    if (file === undefined) throw refuse('not-found', 'the image has none');
    if (offset < 0 || offset + length > file.sizeBytes) throw refuse('image', `it has only ${file.sizeBytes} bytes`);
    const into = Buffer.alloc(length);
    const { extents } = this.index;
    let start = 0;
    for (let i = 0; i < file.extentCount && start < offset + length; i++) {
      const at = (file.firstExtent + i) * EXTENT_WORDS;
      const extentBytes = extents[at + 2] ?? 0;
      const [from, to] = [Math.max(start, offset), Math.min(start + extentBytes, offset + length)];
      if (from < to) {
        const inChunk = (extents[at + 1] ?? 0) + from - start;
        await this.context.cache.copy(extents[at] ?? 0, inChunk, into.subarray(from - offset, to - offset));
      }
      start += extentBytes;
    }
    return into;
  }

  verifyRest(progress?: (bytes: number) => void): Promise<void> {
    return this.context.source.verifyRest(progress);
  }

  close(): void {
    this.context.source.close();
  }
}

async function checkSize(store: Store, object: { name: string; sizeBytes: number }): Promise<void> {
  const present = await store.size(object.name);
  const refuse = (reason: string, hint?: string): FastFreezeError => {
    const more = hint === undefined ? {} : { hint };
    return new FastFreezeError({ code: 'image', op: 'open the image', subject: object.name, reason, ...more });
  };
  // Not `not-found`, which means that a job has no image: this one has, and must not silently start anew.
  if (present === undefined) throw refuse('this object of the image is missing', MISSING_HINT);
  if (present === object.sizeBytes) return;
  const kind = present < object.sizeBytes ? 'truncated' : 'longer than it was written';
  throw refuse(`it is ${kind}: ${object.sizeBytes} bytes were written, ${present} are there`);
}

const MISSING_HINT =
  'an older generation may be whole: --generation N, fastfreeze list shows them; --no-restore starts over';

/** The index of a committed image, verified. The next image's writer needs nothing else of this one. */
export async function readIndex(store: Store, image: SealedImage, keys?: ImageKeys): Promise<ImageIndex> {
  const { name, sizeBytes, sha256 } = image.index;
  const refuse = (reason: string): FastFreezeError =>
    new FastFreezeError({ code: 'image', op: 'read the index', subject: name, reason });
  if (sizeBytes > MAX_INDEX_BYTES) throw refuse(`with ${sizeBytes} bytes it is too large`);
  if (image.cipher !== 'none' && sizeBytes <= TAG_BYTES) throw refuse(`with ${sizeBytes} bytes it is too small`);
  const bytes = Buffer.alloc(sizeBytes);
  await store.read(name, 0, bytes).catch((error: unknown) => {
    if (error instanceof FastFreezeError && error.code === 'not-found') throw refuse('it is missing');
    throw error;
  });
  if (createHash('sha256').update(bytes).digest('hex') !== sha256) {
    throw refuse('its checksum is not the one in the manifest: it is damaged or belongs to another image');
  }
  if (image.cipher === 'none') return decodeIndex(bytes, name);
  if (keys === undefined) throw missingPassphrase(name);
  const plain = bytes.subarray(0, bytes.length - TAG_BYTES);
  if (!(await loadAead().open(keys.forIndex(image.prefix), plain, bytes.subarray(plain.length)))) {
    throw refuse('it was changed by somebody who does not know the passphrase');
  }
  return decodeIndex(plain, name, image.cipher);
}

/** The manifest names the shards for those who have no index (pruning, sizes); the two must agree. */
export function checkShards(image: SealedImage, index: ImageIndex): void {
  const listed = new Map(image.shards.map((shard) => [shard.name, shard.sizeBytes]));
  const agree =
    listed.size === index.shards.length &&
    index.shards.every((shard) => listed.get(shardName(shard.prefix, shard.number)) === shard.sizeBytes);
  if (agree) return;
  const reason = 'it lists other shards than the manifest does';
  throw new FastFreezeError({ code: 'image', op: 'read the index', subject: image.index.name, reason });
}
