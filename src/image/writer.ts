// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { FastFreezeError } from '../base/errors.js';
import type { Store } from '../store/store.js';
import { type Block, type BlockPool, createBlockPool } from './blocks.js';
import { ChunkSink } from './chunk-sink.js';
import { FileWriter, type FileWriterContext, type ImageFileWriter } from './image-file-writer.js';
import { buildIndex, storeIndex } from './index-build.js';
import type { ImageIndex } from './index-format.js';
import { loadAead } from '../linux/aead.js';
import type { ImageKeys } from './keys.js';
import { CHUNK_HEADER_BYTES, type Codec, TAG_BYTES } from './layout.js';
import type { SealedImage } from './manifest.js';
import { assertPrefix, indexName, shardName } from './names.js';
import { Packer } from './packer.js';
import { ShardSet } from './shard-set.js';
import { SmallRegions } from './small-regions.js';

export interface ImageWriterOptions {
  readonly store: Store;
  /** A name that no other image of the job has: `newPrefix()`. */
  readonly prefix: string;
  readonly numShards: number;
  readonly codec: Codec;
  readonly blocks?: BlockPool;
  /** To encrypt with; undefined for an image that everybody who gets at it can read. */
  readonly keys?: ImageKeys;
  /** The image of the generation right before this one, with the same keys: what equals its chunks is not stored again. */
  readonly previous?: { readonly index: ImageIndex; readonly generation: number };
  /** For tests: shards roll over at this size. */
  readonly maxShardBytes?: number;
  /** For tests: see `ShardSetOptions`. */
  readonly minEarlyBytes?: number;
}

export interface ImageWriterStats {
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly chunks: number;
  readonly reusedChunks: number;
  /** Shards that are durable and visible. */
  readonly durableShards: number;
}

/**
 * Writes an image: any number of files at once, filled in place. Compressing, hashing and storing go on beside the
 * producer in the memory of one block pool. The first failure ends all of it.
 */
export interface ImageWriter {
  file(name: string): ImageFileWriter;
  /** Resolves when asking for memory again makes sense, or the image has failed. */
  room(): Promise<void>;
  /** Resolves when the store has been given all chunks that are complete: what comes next finds memory. */
  settled(): Promise<void>;
  /** The first failure of a codec or the store. */
  readonly error: FastFreezeError | undefined;
  /** Aborted with that failure as its reason. */
  readonly failed: AbortSignal;
  readonly stats: ImageWriterStats;
  /** Of each shard: stored bytes, and milliseconds from its first byte until it was durable. */
  transfers(): readonly { readonly sizeBytes: number; readonly durationMs: number }[];
  /** Everything durable and visible, the index last. Nothing is committed yet: that is the manifest's part. */
  finish(): Promise<SealedImage>;
  /**
   * Remove everything written under this prefix. Never throws. Once `finish` has resolved it does nothing: a commit may
   * have been tried since, and only `removeUncommitted` looks whether it stands.
   */
  abort(): Promise<void>;
}

export function createImageWriter(options: ImageWriterOptions): Promise<ImageWriter> {
  // A promise, so that a codec that is missing rejects, and later versions may look at the store first.
  return new Promise((resolve) => {
    assertPrefix(options.prefix);
    resolve(new Writer(options));
  });
}

class Writer implements ImageWriter, FileWriterContext {
  readonly sink: ChunkSink;
  readonly packer: Packer;
  readonly regions = new SmallRegions();

  private readonly blocks: BlockPool;
  private readonly shards: ShardSet;
  private readonly files = new Map<string, FileWriter>();
  private readonly failure = new AbortController();
  private waiters: (() => void)[] = [];
  private sealed = false;

  constructor(private readonly options: ImageWriterOptions) {
    this.blocks = options.blocks ?? createBlockPool(options.store.partBytes === undefined ? {} : FOR_PARTS);
    const { keys, prefix } = options;
    this.shards = new ShardSet({ ...options, ...(keys === undefined ? {} : { seal: sealer(keys, prefix) }) });
    this.sink = new ChunkSink(
      {
        codec: options.codec,
        cipher: keys === undefined ? 'none' : 'aes-256-gcm',
        blocks: this.blocks,
        shards: this.shards,
        hashSeed: options.previous?.index.hashSeed ?? randomBytes(8).readBigUInt64LE(),
        previous: options.previous?.index,
      },
      (error) => {
        this.failure.abort(error);
        this.notify();
      },
      // Whoever waits may now send off early what others hold.
      () => this.notify(),
    );
    this.packer = new Packer(
      this.sink,
      () => this.takeBlock(),
      (block) => this.giveBlock(block),
    );
  }

  get error(): FastFreezeError | undefined {
    return this.sink.failure;
  }

  get failed(): AbortSignal {
    return this.failure.signal;
  }

  get stats(): ImageWriterStats {
    let rawBytes = 0;
    for (const file of this.files.values()) rawBytes += file.sizeBytes;
    const { storedBytes, reusedChunks, chunks } = this.sink;
    return { rawBytes, storedBytes, chunks: chunks.length, reusedChunks, durableShards: this.shards.durable };
  }

  transfers(): { sizeBytes: number; durationMs: number }[] {
    return this.shards.transfers();
  }

  file(name: string): ImageFileWriter {
    if (this.files.has(name) || name === '' || name.includes('\0')) {
      const reason = 'an image has each file once, under a name';
      throw new FastFreezeError({ code: 'internal', op: 'add the file', subject: JSON.stringify(name), reason });
    }
    const file = new FileWriter(name, this);
    this.files.set(name, file);
    return file;
  }

  room(): Promise<void> {
    if (!this.hasRoom()) this.yieldIfStuck();
    if (this.sink.failure !== undefined || this.hasRoom()) return Promise.resolve();
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  settled(): Promise<void> {
    return this.sink.idle();
  }

  async finish(): Promise<SealedImage> {
    try {
      const image = await this.seal();
      this.sealed = true;
      return image;
    } catch (error) {
      throw this.sink.fail(error);
    }
  }

  async abort(): Promise<void> {
    if (this.sealed) return;
    this.sink.fail(
      new FastFreezeError({
        code: 'aborted',
        op: 'write the image',
        subject: this.options.prefix,
        reason: 'asked to stop',
      }),
    );
    await this.shards.callOff();
    await this.sink.idle();
    for (const file of this.files.values()) file.discard();
    this.packer.discard();
    await this.shards.abort();
    await this.options.store.remove(indexName(this.options.prefix)).catch(() => undefined);
  }

  takeBlock(): Block | undefined {
    const block = this.blocks.file.take();
    if (block === undefined) this.yieldIfStuck();
    return block;
  }

  giveBlock(block: Block): void {
    this.blocks.file.give(block);
    this.packer.work();
    this.notify();
  }

  notify(): void {
    if (this.waiters.length === 0) return;
    const waiters = this.waiters;
    this.waiters = [];
    for (const resolve of waiters) resolve();
  }

  private hasRoom(): boolean {
    return this.blocks.file.free > 0 && this.packer.backlog === 0;
  }

  /** With every block held half full and none under way, none would ever become free: send the fullest off early. */
  private yieldIfStuck(): void {
    if (this.sink.underWay > 0 || this.blocks.file.free > 0) return;
    let most = this.packer.heldBytes ?? -1;
    let fullest: FileWriter | undefined;
    for (const file of this.files.values()) {
      if ((file.heldBytes ?? -1) <= most) continue;
      most = file.heldBytes ?? -1;
      fullest = file;
    }
    if (fullest === undefined) this.packer.flush();
    else fullest.yieldBlock();
  }

  private async seal(): Promise<SealedImage> {
    for (const file of this.files.values()) if (!file.ended) throw new Error(`the file ${file.name} has not ended`);
    while (this.packer.backlog > 0 && this.sink.failure === undefined) await this.room();
    this.packer.flush();
    await this.sink.idle();
    // The last chunks may have given their blocks to pieces that waited for one.
    this.packer.flush();
    await this.sink.idle();
    if (this.sink.failure !== undefined) throw this.sink.failure;
    await this.shards.finish();

    const { store, prefix, codec, previous, keys } = this.options;
    const index = buildIndex([...this.files.values()], this.sink, this.shards.shards(), previous?.index);
    const record = await storeIndex(store, prefix, index, keys);
    return {
      prefix,
      codec,
      ...(keys === undefined
        ? { cipher: 'none' as const }
        : { cipher: 'aes-256-gcm' as const, encryption: { ...keys.derivation, seal: '' } }),
      baseGeneration: this.sink.borrowed.size > 0 ? (previous?.generation ?? null) : null,
      shards: index.shards.map((shard) => ({
        name: shardName(shard.prefix, shard.number),
        sizeBytes: shard.sizeBytes,
      })),
      index: record,
      rawBytes: this.stats.rawBytes,
      storedBytes: this.sink.storedBytes + record.sizeBytes,
      files: this.files.size,
      chunks: index.chunks.length,
    };
  }
}

/** A store that sends parts is what is waited for, and its parts take memory as well. */
const FOR_PARTS = { fileBlocks: 6, storedBlocks: 4 };

/** Each chunk's own header is authenticated with it. */
function sealer(keys: ImageKeys, prefix: string): (framed: Buffer, shard: number, offset: number) => Promise<Buffer> {
  const aead = loadAead();
  return async (framed, shard, offset) => {
    const tag = Buffer.alloc(TAG_BYTES);
    const input = keys.forPlace(prefix, shard, offset, framed.subarray(0, CHUNK_HEADER_BYTES));
    await aead.seal(input, framed.subarray(CHUNK_HEADER_BYTES), tag);
    return tag;
  };
}
