// SPDX-License-Identifier: Apache-2.0
import type { Block } from './blocks.js';
import type { ChunkSink } from './chunk-sink.js';
import { MAX_CHUNK_BYTES } from './layout.js';

/** Where the bytes of a file lie: a ticket of the sink, an offset in its chunk, a length. */
export type Extents = number[];

/** What of a file waits for its place in a shared chunk. */
interface Piece {
  readonly bytes: Buffer;
  readonly length: number;
  readonly extents: Extents;
  readonly release: () => void;
}

/**
 * Puts the bytes of many small files into shared chunks: an application of 300 processes has thousands of them, and
 * one request to a store each would take longer than all its memory.
 */
export class Packer {
  private block: Block | undefined;
  private ticket = 0;
  private filled = 0;
  private readonly waiting: Piece[] = [];

  constructor(
    private readonly sink: ChunkSink,
    private readonly takeBlock: () => Block | undefined,
    private readonly giveBlock: (block: Block) => void,
  ) {}

  /** Pieces that wait for a block. */
  get backlog(): number {
    return this.waiting.length;
  }

  /** Bytes in the block being filled; undefined when there is none. */
  get heldBytes(): number | undefined {
    return this.block === undefined ? undefined : this.filled;
  }

  /** Copy a piece, now or as soon as there is a block; `release` says that its memory is free. */
  add(bytes: Buffer, length: number, extents: Extents, release: () => void): void {
    this.waiting.push({ bytes, length, extents, release });
    this.work();
  }

  /** A block that already holds a piece at its start becomes the shared one: nothing is copied, nothing waits. */
  adopt(block: Block, length: number, extents: Extents): void {
    if (this.block !== undefined && this.filled + length <= MAX_CHUNK_BYTES) {
      this.place({ bytes: block.data, length, extents, release: () => this.giveBlock(block) });
      return;
    }
    this.flush();
    this.begin(block);
    extents.push(this.ticket, 0, length);
    this.filled = length;
  }

  /** Go on with what waits. Call when a block has become free. */
  work(): void {
    for (let piece = this.waiting[0]; piece !== undefined; piece = this.waiting[0]) {
      if (this.block !== undefined && this.filled + piece.length > MAX_CHUNK_BYTES) this.flush();
      if (this.block === undefined) {
        const block = this.takeBlock();
        if (block === undefined) return;
        this.begin(block);
      }
      this.waiting.shift();
      this.place(piece);
    }
  }

  /** Send off what is held, full or not. */
  flush(): void {
    const { block } = this;
    if (block === undefined) return;
    this.block = undefined;
    if (this.filled === 0) this.giveBlock(block);
    else this.sink.submit(this.ticket, block, this.filled, () => this.giveBlock(block));
  }

  /** Give back what is held, unwritten. */
  discard(): void {
    this.waiting.length = 0;
    if (this.block !== undefined) this.giveBlock(this.block);
    this.block = undefined;
  }

  private begin(block: Block): void {
    this.block = block;
    this.ticket = this.sink.newTicket();
    this.filled = 0;
  }

  private place(piece: Piece): void {
    if (this.block === undefined) return;
    piece.bytes.copy(this.block.data, this.filled, 0, piece.length);
    piece.extents.push(this.ticket, this.filled, piece.length);
    this.filled += piece.length;
    piece.release();
  }
}
