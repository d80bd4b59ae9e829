// SPDX-License-Identifier: Apache-2.0
import { COMPRESSED_SLACK_BYTES } from '../linux/codecs.js';
import { CHUNK_HEADER_BYTES, MAX_CHUNK_BYTES, TAG_BYTES } from './layout.js';

/** Room for one chunk and, right before it, its header: both go to the store, or come from it, in one piece. */
export interface Block {
  /** Where the raw or compressed bytes of a chunk stand. */
  readonly data: Buffer;
  /** The same and what lies behind: for a compressor. */
  readonly room: Buffer;
  /** The same bytes as words, for looking at pages without a native call. */
  readonly words: Uint32Array;
  /** Header, data, and room for what authenticates them. */
  readonly framed: Buffer;
}

export interface BlockPoolOptions {
  /** Blocks that hold bytes of files: being filled, hashed, compressed, or handed to the reader's caller. */
  readonly fileBlocks?: number;
  /** Blocks that hold bytes as stored: the compressor's output, or what was fetched and is not yet decompressed. */
  readonly storedBlocks?: number;
}

/** The one budget of memory for bytes in flight. Blocks are made when first needed and then reused for ever. */
export interface BlockPool {
  readonly file: BlockList;
  readonly stored: BlockList;
}

export function createBlockPool(options: BlockPoolOptions = {}): BlockPool {
  return { file: new BlockList(options.fileBlocks ?? 8), stored: new BlockList(options.storedBlocks ?? 6) };
}

export class BlockList {
  private readonly idle: Block[] = [];
  private made = 0;
  private givenBack = 0;
  private readonly waiters: ((block: Block) => void)[] = [];

  constructor(readonly capacity: number) {}

  get free(): number {
    return this.idle.length + this.capacity - this.made;
  }

  /** A block if one is free now. Whoever waits in `taken` comes first. */
  take(): Block | undefined {
    const block = this.idle.pop();
    if (block !== undefined) return block;
    if (this.made === this.capacity) return undefined;
    this.made++;
    return makeBlock();
  }

  /** A block as soon as one is free, first come first served. */
  taken(): Promise<Block> {
    const block = this.take();
    if (block !== undefined) return Promise.resolve(block);
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  /** The same, but undefined once no block at all was given back for `stallMs`: then whoever has them may be stuck. */
  takenUnlessStalled(stallMs: number): Promise<Block | undefined> {
    const block = this.take();
    if (block !== undefined) return Promise.resolve(block);
    return new Promise((resolve) => {
      let seen = this.givenBack;
      const look = (): void => {
        if (this.givenBack === seen) {
          this.waiters.splice(this.waiters.indexOf(waiter), 1);
          resolve(undefined);
          return;
        }
        seen = this.givenBack;
        timer = setTimeout(look, stallMs);
      };
      const waiter = (came: Block): void => {
        clearTimeout(timer);
        resolve(came);
      };
      let timer = setTimeout(look, stallMs);
      this.waiters.push(waiter);
    });
  }

  give(block: Block): void {
    this.givenBack++;
    const waiter = this.waiters.shift();
    if (waiter === undefined) this.idle.push(block);
    else waiter(block);
  }
}

// The data starts on a cache line of its own, so the header has some unused room before it.
const FRONT_BYTES = 64;
const BACK_BYTES = Math.max(TAG_BYTES, COMPRESSED_SLACK_BYTES);

/** A block that belongs to no list. */
export function makeBlock(): Block {
  const whole = Buffer.allocUnsafeSlow(FRONT_BYTES + MAX_CHUNK_BYTES + BACK_BYTES);
  const data = whole.subarray(FRONT_BYTES, FRONT_BYTES + MAX_CHUNK_BYTES);
  return {
    data,
    room: whole.subarray(FRONT_BYTES),
    words: new Uint32Array(whole.buffer, FRONT_BYTES, MAX_CHUNK_BYTES / 4),
    framed: whole.subarray(FRONT_BYTES - CHUNK_HEADER_BYTES),
  };
}
