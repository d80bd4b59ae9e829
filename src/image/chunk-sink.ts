// SPDX-License-Identifier: Apache-2.0
import type { FastFreezeError } from '../base/errors.js';
import { asFastFreezeError } from '../base/errors.js';
import { type Compressor, type HashWords, type Hasher, loadHasher, loadZstd } from '../linux/codecs.js';
import { loadLz4Block, loadLz4Frame } from '../linux/lz4.js';
import type { Block, BlockPool } from './blocks.js';
import { ChunkTable } from './chunk-table.js';
import type { ImageIndex } from './index-format.js';
import { CHUNK_HEADER_BYTES, type ChunkCodec, type Cipher, type Codec, TAG_BYTES, writeChunkHeader } from './layout.js';
import type { ShardSet } from './shard-set.js';
import { type Turn, Turns } from './turns.js';

/** Compressing must save at least this share, or the chunk is stored as it is and restores without decompressing. */
const MIN_GAIN = 0.03;

export interface ChunkSinkOptions {
  readonly codec: Codec;
  readonly cipher: Cipher;
  readonly blocks: BlockPool;
  readonly shards: ShardSet;
  readonly hashSeed: bigint;
  readonly previous: ImageIndex | undefined;
}

/**
 * Where filled blocks go: each is hashed, looked up, compressed and stored, many at once, all off the main thread. Shards
 * get them in the order of submission, so that whoever reads in that order reads each shard from front to back.
 */
export class ChunkSink {
  readonly chunks = new ChunkTable();
  /** Chunks of earlier images that this one points to: `place.shard` is then a position in the previous index. */
  readonly borrowed = new Set<number>();
  storedBytes = 0;
  reusedChunks = 0;
  failure: FastFreezeError | undefined;
  readonly hashSeed: bigint;

  private readonly hasher: Hasher = loadHasher();
  private readonly compressors: Compressors | undefined;
  /** The last chunk could not be compressed. */
  private wasNoise = false;
  private ticketChunks = new Uint32Array(256);
  private tickets = 0;
  private inFlight = 0;
  /** To take a block for the compressed form: out of order, those behind could hold all that those before wait for. */
  private readonly toCompress = new Turns();
  private readonly toAppend = new Turns();
  private readonly idleCallbacks: (() => void)[] = [];

  constructor(
    private readonly options: ChunkSinkOptions,
    private readonly onFailure: (error: FastFreezeError) => void,
    /** Nothing is under way any more. */
    private readonly onIdle: () => void,
  ) {
    this.hashSeed = options.hashSeed;
    this.compressors = loadCompressors(options.codec);
    const earlier = options.previous?.chunks;
    if (earlier !== undefined && earlier.length > 0 && earlier.cipher(0) !== options.cipher) {
      throw new Error('an image can only build on one that is encrypted as it is');
    }
  }

  /** A name for a chunk that will be submitted; extents can refer to it at once. */
  newTicket(): number {
    if (this.tickets === this.ticketChunks.length) {
      const larger = new Uint32Array(2 * this.tickets);
      larger.set(this.ticketChunks);
      this.ticketChunks = larger;
    }
    return this.tickets++;
  }

  /** The chunk behind a ticket, once everything submitted is done. */
  chunkOf(ticket: number): number {
    return this.ticketChunks[ticket] ?? 0;
  }

  /** Take the first `length` bytes of a block. `release` is called as soon as the block is not needed any more. */
  submit(ticket: number, block: Block, length: number, release: () => void): void {
    this.inFlight++;
    const turns = { compress: this.toCompress.next(), append: this.toAppend.next() };
    void this.store(ticket, block, length, release, turns).finally(() => {
      turns.compress.pass();
      turns.append.pass();
      this.inFlight--;
      if (this.inFlight > 0) return;
      for (const idle of this.idleCallbacks.splice(0)) idle();
      this.onIdle();
    });
  }

  /** Chunks submitted whose block, or whose stored form, is not free yet. */
  get underWay(): number {
    return this.inFlight;
  }

  /** Resolves when nothing is under way; whether it went well is in `failure`. */
  idle(): Promise<void> {
    if (this.inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => this.idleCallbacks.push(resolve));
  }

  fail(error: unknown): FastFreezeError {
    if (this.failure === undefined) {
      this.failure = asFastFreezeError(error, 'write the image');
      this.onFailure(this.failure);
    }
    return this.failure;
  }

  private async store(
    ticket: number,
    block: Block,
    length: number,
    release: () => void,
    turns: { readonly compress: Turn; readonly append: Turn },
  ): Promise<void> {
    let releaseOnce: (() => void) | undefined = release;
    const freeBlock = (): void => {
      releaseOnce?.();
      releaseOnce = undefined;
    };
    try {
      // Never within the call: whoever submits still has the block in hand.
      await Promise.resolve();
      if (this.failure !== undefined) return;
      // Here and now: what was just read is still in this CPU's cache, and a thread of the pool costs more than the hash.
      const hash = this.hasher.hashNow(block.data, length, this.hashSeed);
      const known = this.lookUp(hash, length);
      if (known !== undefined) {
        this.ticketChunks[ticket] = known;
        this.reusedChunks++;
        return;
      }
      const chunk = this.chunks.add(hash, length);
      this.ticketChunks[ticket] = chunk;
      const stored = await this.compress(block, length, turns.compress);
      if (stored === undefined) await this.append(chunk, 'none', block, length, turns.append);
      else {
        freeBlock();
        try {
          await this.append(chunk, stored.codec, stored.block, stored.length, turns.append);
        } finally {
          this.options.blocks.stored.give(stored.block);
        }
      }
    } catch (error) {
      this.fail(error);
    } finally {
      freeBlock();
    }
  }

  /** A chunk of the same content in this image or the previous one; the seed makes equal hashes unforgeable. */
  private lookUp(hash: HashWords, length: number): number | undefined {
    const own = this.chunks.find(hash, length);
    if (own !== undefined) return own;
    const { previous } = this.options;
    const earlier = previous?.chunks.find(hash, length);
    if (previous === undefined || earlier === undefined) return undefined;
    const chunk = this.chunks.add(hash, length);
    this.chunks.setStored(chunk, previous.chunks.facts(earlier));
    this.chunks.setPlace(chunk, previous.chunks.place(earlier));
    this.borrowed.add(chunk);
    return chunk;
  }

  private async compress(
    block: Block,
    length: number,
    turn: Turn,
  ): Promise<{ block: Block; length: number; codec: ChunkCodec } | undefined> {
    if (this.compressors === undefined) return undefined;
    const capacity = Math.floor(length * (1 - MIN_GAIN));
    await turn.before;
    const taken = this.options.blocks.stored.taken();
    // Blocks are given to those who wait in turn.
    turn.pass();
    const output = await taken;
    const { compressor, codec } = this.wasNoise ? this.compressors.afterNoise : this.compressors.usual;
    try {
      const stored = await compressor.compress(block.data, length, output.room, capacity);
      this.wasNoise = stored === 0;
      if (stored > 0) return { block: output, length: stored, codec };
    } catch (error) {
      this.fail(error);
    }
    this.options.blocks.stored.give(output);
    return undefined;
  }

  private async append(chunk: number, codec: ChunkCodec, block: Block, length: number, turn: Turn): Promise<void> {
    if (this.failure !== undefined) return;
    const { cipher } = this.options;
    const storedBytes = cipher === 'none' ? length : length + TAG_BYTES;
    this.chunks.setStored(chunk, { codec, cipher, storedBytes });
    const isHashed = codec !== 'none' && cipher === 'none';
    // Here and now, as above.
    const payload = isHashed ? this.hasher.hashNow(block.data, length, this.hashSeed) : undefined;
    writeChunkHeader(block.framed, 0, this.chunks.facts(chunk), payload);
    const framedBytes = CHUNK_HEADER_BYTES + storedBytes;
    await turn.before;
    const appended = this.options.shards.append(block, framedBytes);
    turn.pass();
    this.chunks.setPlace(chunk, await appended);
    this.storedBytes += framedBytes;
  }
}

interface NamedCompressor {
  readonly compressor: Compressor;
  readonly codec: ChunkCodec;
}

interface Compressors {
  readonly usual: NamedCompressor;
  /** What fails to compress comes in long stretches (media, ciphers, floating point numbers): this gives them up sooner. */
  readonly afterNoise: NamedCompressor;
}

function loadCompressors(codec: Codec): Compressors | undefined {
  if (codec === 'none') return undefined;
  if (codec === 'zstd') {
    const only = { compressor: loadZstd(), codec };
    return { usual: only, afterNoise: only };
  }
  return {
    usual: { compressor: loadLz4Frame(), codec: 'lz4-frame' },
    afterNoise: { compressor: loadLz4Block(), codec: 'lz4' },
  };
}
