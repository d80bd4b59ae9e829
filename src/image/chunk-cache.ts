// SPDX-License-Identifier: Apache-2.0
import { BlockList, type Block } from './blocks.js';
import type { ChunkSource } from './chunk-source.js';

/** Chunks kept decoded at a time: 8 MiB. */
const CACHED_CHUNKS = 8;

interface Entry {
  readonly block: Block;
  readonly loaded: Promise<void>;
  users: number;
}

/**
 * Decoded chunks that many readers take small pieces of. Its blocks are its own and are never handed out, so that
 * whoever copies from it makes progress whatever the holders of other blocks do.
 */
export class ChunkCache {
  private readonly blocks = new BlockList(CACHED_CHUNKS);
  /** The least recently used first. */
  private readonly entries = new Map<number, Entry>();
  private waiting = 0;

  constructor(private readonly source: ChunkSource) {}

  /** Copy from the raw bytes of a chunk. */
  async copy(chunk: number, offset: number, into: Uint8Array): Promise<void> {
    const entry = await this.use(chunk);
    try {
      await entry.loaded;
      into.set(entry.block.data.subarray(offset, offset + into.length));
    } catch (error) {
      // Whoever asks again shall fetch again.
      if (this.entries.get(chunk) === entry) this.entries.delete(chunk);
      throw error;
    } finally {
      this.unuse(chunk, entry);
    }
  }

  private async use(chunk: number): Promise<Entry> {
    const found = this.touch(chunk);
    if (found !== undefined) return found;
    this.evictOne();
    this.waiting++;
    const block = await this.blocks.taken();
    this.waiting--;
    const meanwhile = this.touch(chunk);
    if (meanwhile !== undefined) {
      this.blocks.give(block);
      return meanwhile;
    }
    const loaded = this.source.load(chunk, block);
    loaded.catch(() => undefined);
    const entry: Entry = { block, loaded, users: 1 };
    this.entries.set(chunk, entry);
    return entry;
  }

  private touch(chunk: number): Entry | undefined {
    const entry = this.entries.get(chunk);
    if (entry === undefined) return undefined;
    entry.users++;
    this.entries.delete(chunk);
    this.entries.set(chunk, entry);
    return entry;
  }

  private unuse(chunk: number, entry: Entry): void {
    entry.users--;
    if (entry.users > 0) return;
    const isKept = this.entries.get(chunk) === entry;
    if (isKept && this.waiting === 0) return;
    if (isKept) this.entries.delete(chunk);
    this.blocks.give(entry.block);
  }

  /** Make room for one more, at the cost of what was not used for longest. */
  private evictOne(): void {
    if (this.blocks.free > 0) return;
    for (const [chunk, entry] of this.entries) {
      if (entry.users > 0) continue;
      this.entries.delete(chunk);
      this.blocks.give(entry.block);
      return;
    }
  }
}
