// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { type Decompressor, type Hasher, loadHasher, loadZstd } from '../linux/codecs.js';
import { loadLz4Block, loadLz4Frame } from '../linux/lz4.js';
import type { Store, StoreReader } from '../store/store.js';
import { type Block, type BlockPool, makeBlock } from './blocks.js';
import type { ImageIndex } from './index-format.js';
import { type Aead, loadAead } from '../linux/aead.js';
import { type ImageKeys, missingPassphrase } from './keys.js';
import {
  CHUNK_HEADER_BYTES,
  type ChunkCodec,
  type ChunkFacts,
  TAG_BYTES,
  sameHash,
  writeChunkHeader,
} from './layout.js';
import { shardName } from './names.js';

/** Brings chunks from the shards, decompressed and verified: what it puts into a block is right or it throws. */
export class ChunkSource {
  private readonly hasher: Hasher = loadHasher();
  private readonly readers = new Map<number, Promise<StoreReader>>();
  private closed = false;
  private aead: Aead | undefined;
  /** One byte a chunk: 1 when it was found to be right. */
  private readonly verified: Uint8Array;

  constructor(
    private readonly store: Store,
    private readonly index: ImageIndex,
    private readonly blocks: BlockPool,
    private readonly keys?: ImageKeys,
  ) {
    this.verified = new Uint8Array(index.chunks.length);
  }

  /** Put a chunk's raw bytes at the start of `into.data`. Never waits for a block that a caller of ours holds. */
  async load(chunk: number, into: Block): Promise<void> {
    const facts = this.index.chunks.facts(chunk);
    if (facts.codec === 'none') await this.fetch(chunk, facts, into);
    else {
      const stored = await this.blocks.stored.taken();
      try {
        await this.fetch(chunk, facts, stored);
        const length = await decompressorOf(facts.codec).decompress(
          stored.data,
          payloadBytes(facts),
          into.data,
          facts.rawBytes,
        );
        if (length !== facts.rawBytes) throw this.damaged(chunk, `its ${facts.codec} data cannot be decompressed`);
      } finally {
        this.blocks.stored.give(stored);
      }
    }
    const hash = await this.hasher.hash(into.data, facts.rawBytes, this.index.hashSeed);
    if (!sameHash(hash, facts.hash)) throw this.damaged(chunk, 'its checksum does not match');
    this.verified[chunk] = 1;
  }

  /**
   * Bring the chunks that nobody has asked for, only to see that they are right. Needs no block of the pool's. `progress`
   * is told how many raw bytes of them were.
   */
  async verifyRest(progress?: (bytes: number) => void): Promise<void> {
    let next = 0;
    let bytes = 0;
    const follow = async (): Promise<void> => {
      const block = makeBlock();
      for (;;) {
        next = this.verified.indexOf(0, next);
        if (next < 0) next = this.verified.length;
        if (next === this.verified.length) return;
        const chunk = next++;
        await this.load(chunk, block);
        bytes += this.index.chunks.rawBytes(chunk);
        progress?.(bytes);
      }
    };
    await Promise.all([follow(), follow()]);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const reader of this.readers.values()) {
      reader.then(
        (opened) => opened.close(),
        () => undefined,
      );
    }
  }

  /** Header and payload by one read; the header can hold nothing but what the index says. */
  private async fetch(chunk: number, facts: ChunkFacts, into: Block): Promise<void> {
    const { shard, offset } = this.index.chunks.place(chunk);
    const name = this.nameOf(shard);
    const reader = await this.reader(shard);
    await reader
      .read(offset, into.framed.subarray(0, CHUNK_HEADER_BYTES + facts.storedBytes))
      .catch((error: unknown) => {
        throw asMissing(error, name);
      });
    const expected = Buffer.allocUnsafe(CHUNK_HEADER_BYTES);
    const isHashed = facts.codec !== 'none' && facts.cipher === 'none';
    const payload = isHashed ? await this.hasher.hash(into.data, facts.storedBytes, this.index.hashSeed) : undefined;
    writeChunkHeader(expected, 0, facts, payload);
    if (!expected.equals(into.framed.subarray(0, CHUNK_HEADER_BYTES))) {
      throw this.damaged(chunk, 'its checksum or its header does not match');
    }
    if (facts.cipher !== 'none' && !(await this.decrypt(chunk, facts, into))) {
      throw this.damaged(chunk, 'it is not what was encrypted for this place');
    }
  }

  private decrypt(chunk: number, facts: ChunkFacts, into: Block): Promise<boolean> {
    const { shard, offset } = this.index.chunks.place(chunk);
    const { prefix, number } = this.index.shards[shard] ?? { prefix: '', number: 0 };
    if (this.keys === undefined) throw missingPassphrase(this.nameOf(shard));
    const end = CHUNK_HEADER_BYTES + payloadBytes(facts);
    const input = this.keys.forPlace(prefix, number, offset, into.framed.subarray(0, CHUNK_HEADER_BYTES));
    this.aead ??= loadAead();
    const payload = into.framed.subarray(CHUNK_HEADER_BYTES, end);
    return this.aead.open(input, payload, into.framed.subarray(end, end + TAG_BYTES));
  }

  private reader(shard: number): Promise<StoreReader> {
    if (this.closed) {
      return Promise.reject(
        new FastFreezeError({ code: 'aborted', op: 'read the image', reason: 'the image was closed' }),
      );
    }
    const known = this.readers.get(shard);
    if (known !== undefined) return known;
    const opened = this.openShard(this.nameOf(shard), this.index.shards[shard]?.sizeBytes);
    this.readers.set(shard, opened);
    return opened;
  }

  /** Sizes were looked at when the image was opened. */
  private async openShard(name: string, sizeBytes: number | undefined): Promise<StoreReader> {
    try {
      return await this.store.openReader(name, sizeBytes);
    } catch (error) {
      throw asMissing(error, name);
    }
  }

  private nameOf(shard: number): string {
    const entry = this.index.shards[shard];
    return entry === undefined ? `shard ${shard}` : shardName(entry.prefix, entry.number);
  }

  private damaged(chunk: number, what: string): FastFreezeError {
    const { shard, offset } = this.index.chunks.place(chunk);
    return new FastFreezeError({
      code: 'image',
      op: 'read the image',
      subject: this.nameOf(shard),
      reason: `the chunk at offset ${offset} is damaged: ${what}`,
      hint: 'restore an older generation with --generation, if one was kept',
    });
  }
}

/** Not `not-found`, which means that a job has no image. */
function asMissing(error: unknown, name: string): unknown {
  if (!(error instanceof FastFreezeError) || error.code !== 'not-found') return error;
  const reason = 'this object of the image is missing';
  return new FastFreezeError({ code: 'image', op: 'read the image', subject: name, reason, cause: error });
}

function payloadBytes({ cipher, storedBytes }: ChunkFacts): number {
  return cipher === 'none' ? storedBytes : storedBytes - TAG_BYTES;
}

function decompressorOf(codec: ChunkCodec): Decompressor {
  if (codec === 'zstd') return loadZstd();
  return codec === 'lz4' ? loadLz4Block() : loadLz4Frame();
}
