// SPDX-License-Identifier: Apache-2.0
import type { Store, StoreWriter } from '../store/store.js';
import type { Block } from './blocks.js';
import type { ChunkPlace } from './chunk-table.js';
import type { IndexedShard } from './index-format.js';
import { TAG_BYTES } from './layout.js';
import { shardName } from './names.js';

/** Object stores limit the size of an object; a shard that reaches this goes on in a new one. */
const MAX_SHARD_BYTES = 64 * 2 ** 30;
/**
 * Where a store joins an object's parts at its end, a shard ends when it holds this share of what its lane has stored so far
 * (but not before so many bytes): most are joined while others are written, and at the end a few of them are waited for. Yet
 * even an image of a terabyte has little more than a hundred.
 */
const EARLY_SHARE = 1 / 4;
const MIN_EARLY_BYTES = 32 << 20;

export interface ShardSetOptions {
  readonly store: Store;
  readonly prefix: string;
  /** How many shards are written side by side. */
  readonly numShards: number;
  readonly maxShardBytes?: number;
  /**
   * Encrypts a framed chunk in place, for the place where it will stand. What authenticates it comes in memory of its own:
   * right behind the chunk its file may go on. Each chunk's length counts it.
   */
  readonly seal?: (framed: Buffer, shard: number, offset: number) => Promise<Buffer>;
  /** For tests: shards are finished early from this size on. */
  readonly minEarlyBytes?: number;
}

/** The shards of one image under way: spreads chunks over them by load, one append at a time each. */
export class ShardSet {
  private readonly lanes: Lane[] = [];
  /** The lane whose part is being filled, and what that part still takes. */
  private filling: { readonly number: number; readonly lane: Lane; leftBytes: number } | undefined;
  private readonly opened: OpenShard[] = [];

  private readonly maxShardBytes: number;
  private storedBytes = 0;
  /** Of a shard that was finished early. */
  private failure: Error | undefined;

  constructor(private readonly options: ShardSetOptions) {
    this.maxShardBytes = options.maxShardBytes ?? MAX_SHARD_BYTES;
  }

  /** Store a framed chunk, in the shard that has the least to do or whose part is being filled. Resolves to its place; the block is then free. */
  append(block: Block, length: number): Promise<ChunkPlace> {
    return new Promise((resolve, reject) => {
      const lane = this.pickLane(length);
      lane.queue.push({ block, length, resolve, reject });
      lane.queuedBytes += length;
      if (!lane.busy) void this.drain(lane);
    });
  }

  /** Make every shard durable and visible. Nothing may be under way any more. */
  async finish(): Promise<void> {
    this.throwIfFailed();
    await Promise.all(this.opened.map((shard) => shard.finished ?? this.end(shard)));
  }

  /** End what is on its way, so that nobody waits for a store that does not answer. `abort` is still to be called. */
  async callOff(): Promise<void> {
    this.failure ??= new Error('called off');
    await Promise.all(this.opened.map((shard) => shard.writer.abort()));
  }

  /** Leave nothing of ours, whatever state it is in. Nothing may be under way any more. */
  async abort(): Promise<void> {
    await Promise.all(this.opened.map((shard) => shard.writer.abort()));
    await Promise.allSettled(this.opened.flatMap((shard) => shard.finished ?? []));
    await Promise.allSettled(this.opened.map(({ id }) => this.options.store.remove(shardName(id.prefix, id.number))));
  }

  /** How many are durable and visible. */
  get durable(): number {
    return this.opened.filter(({ endedMs }) => endedMs !== undefined).length;
  }

  /** In the order of `ChunkPlace.shard`. */
  shards(): IndexedShard[] {
    return this.opened.map((shard) => ({ ...shard.id, sizeBytes: shard.sizeBytes }));
  }

  /** Stored bytes of each, and milliseconds from its first byte until it was durable; for what is not, until now. */
  transfers(): { sizeBytes: number; durationMs: number }[] {
    const nowMs = performance.now();
    return this.opened.map(({ sizeBytes, beganMs, endedMs }) => ({
      sizeBytes,
      durationMs: (endedMs ?? nowMs) - beganMs,
    }));
  }

  private async end(shard: OpenShard): Promise<void> {
    await shard.writer.finish();
    shard.endedMs = performance.now();
  }

  private pickLane(length: number): Lane {
    const { partBytes } = this.options.store;
    if (partBytes !== undefined) return this.laneForPart(length, partBytes);
    // A small image needs no more shards than it can keep busy: a new one is begun only when all others have work.
    const idle = this.lanes.find((lane) => !lane.busy);
    if (idle !== undefined) return idle;
    if (this.lanes.length < this.options.numShards) {
      return this.newLane();
    }
    return this.lanes.reduce((least, lane) => (lane.queuedBytes < least.queuedBytes ? lane : least));
  }

  /** Part by part in turn: of parts that all grow at once each would hold memory that those on their way need. */
  private laneForPart(length: number, partBytes: number): Lane {
    if (this.filling === undefined || this.filling.leftBytes <= 0) {
      const number = ((this.filling?.number ?? -1) + 1) % this.options.numShards;
      const lane = this.lanes[number] ?? this.newLane();
      const position = lane.queue.reduce((sum, job) => sum + job.length, lane.shard?.sizeBytes ?? 0);
      this.filling = { number, lane, leftBytes: partBytes - (position % partBytes) };
    }
    this.filling.leftBytes -= length;
    return this.filling.lane;
  }

  private newLane(): Lane {
    const lane: Lane = { queue: [], queuedBytes: 0, busy: false, shard: undefined, finishing: undefined };
    this.lanes.push(lane);
    return lane;
  }

  private async drain(lane: Lane): Promise<void> {
    lane.busy = true;
    while (lane.queue.length > 0) {
      const batch = lane.queue.splice(0, this.fitting(lane.queue));
      try {
        await this.write(lane, batch);
      } catch (error) {
        for (const job of batch) job.reject(error);
      }
    }
    lane.busy = false;
  }

  /** How many of the queued chunks one shard can take together: at least one. */
  private fitting(queue: readonly Job[]): number {
    let room = this.limit();
    const over = queue.findIndex(({ length }) => (room -= length) < 0);
    return over === -1 ? queue.length : Math.max(over, 1);
  }

  private async write(lane: Lane, batch: readonly Job[]): Promise<void> {
    const bytes = batch.reduce((sum, job) => sum + job.length, 0);
    const shard = await this.shardWithRoom(lane, bytes);
    const start = shard.sizeBytes;
    shard.sizeBytes += bytes;
    this.storedBytes += bytes;
    await shard.writer.append(await this.sealed(shard, start, batch));
    lane.queuedBytes -= bytes;
    let offset = start;
    for (const job of batch) {
      job.resolve({ shard: shard.number, offset });
      offset += job.length;
    }
  }

  private async sealed(shard: OpenShard, start: number, batch: readonly Job[]): Promise<Buffer[]> {
    const { seal } = this.options;
    if (seal === undefined) return batch.map((job) => job.block.framed.subarray(0, job.length));
    let offset = start;
    const sealing = batch.map(async ({ block, length }) => {
      const at = offset;
      offset += length;
      const chunk = block.framed.subarray(0, length - TAG_BYTES);
      return [chunk, await seal(chunk, shard.id.number, at)];
    });
    // All have ended before any block is anybody else's, also when one fails.
    await Promise.allSettled(sealing);
    return (await Promise.all(sealing)).flat();
  }

  private async shardWithRoom(lane: Lane, bytes: number): Promise<OpenShard> {
    this.throwIfFailed();
    const full = lane.shard;
    if (full !== undefined && full.sizeBytes + bytes <= this.limit()) return full;
    if (full !== undefined) {
      // One at a time of each lane: what ends more slowly than it is written is waited for.
      await lane.finishing;
      this.throwIfFailed();
      full.finished = this.end(full);
      lane.finishing = full.finished.catch((error: unknown) => {
        this.failure ??= error instanceof Error ? error : new Error(String(error));
      });
    }
    const { store, prefix } = this.options;
    const id = { prefix, number: this.nextNumber++ };
    const writer = await store.createWriter(shardName(prefix, id.number));
    const beganMs = performance.now();
    lane.shard = {
      id,
      number: this.opened.length,
      writer,
      sizeBytes: 0,
      finished: undefined,
      beganMs,
      endedMs: undefined,
    };
    this.opened.push(lane.shard);
    return lane.shard;
  }

  private throwIfFailed(): void {
    if (this.failure !== undefined) throw this.failure;
  }

  private limit(): number {
    const { joinsAtFinish, writeOnce } = this.options.store;
    if (writeOnce !== undefined) return Math.min(this.maxShardBytes, writeOnce.objectBytes);
    if (!joinsAtFinish) return this.maxShardBytes;
    const early = Math.max(
      this.options.minEarlyBytes ?? MIN_EARLY_BYTES,
      (this.storedBytes / this.options.numShards) * EARLY_SHARE,
    );
    return Math.min(this.maxShardBytes, early);
  }

  private nextNumber = 1;
}

interface Job {
  readonly block: Block;
  readonly length: number;
  readonly resolve: (place: ChunkPlace) => void;
  readonly reject: (error: unknown) => void;
}

interface Lane {
  queue: Job[];
  queuedBytes: number;
  busy: boolean;
  shard: OpenShard | undefined;
  /** Of the shard before; never rejects. */
  finishing: Promise<void> | undefined;
}

interface OpenShard {
  readonly id: { readonly prefix: string; readonly number: number };
  /** Position in the index's shard table. */
  readonly number: number;
  readonly writer: StoreWriter;
  sizeBytes: number;
  finished: Promise<void> | undefined;
  /** By `performance.now()`. */
  readonly beganMs: number;
  endedMs: number | undefined;
}
