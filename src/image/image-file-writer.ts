// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { Block } from './blocks.js';
import type { ChunkSink } from './chunk-sink.js';
import { Cutter, PAGE_BYTES } from './cutter.js';
import type { Extents, Packer } from './packer.js';
import { SMALL_FILE_BYTES, type SmallRegions } from './small-regions.js';

/** One file of an image being written, filled in place by its producer. */
export interface ImageFileWriter {
  /**
   * Memory for the file's next bytes, at least one byte, usually the rest of a block; undefined when no block is free:
   * await `room()` of the image and ask again. Between this and `commit` nothing else of the image may be awaited.
   * Throws the image's error once it has failed.
   */
  reserve(): Buffer | undefined;
  /** The first `length` bytes of the memory just reserved are the file's (none: 0). */
  commit(length: number): void;
  /** The file is complete. Nothing may be reserved any more. */
  end(): void;
}

/** What the files of one image share. */
export interface FileWriterContext {
  readonly sink: ChunkSink;
  readonly packer: Packer;
  readonly regions: SmallRegions;
  takeBlock(): Block | undefined;
  giveBlock(block: Block): void;
  /** Tell whoever waits for room to look again. */
  notify(): void;
}

export class FileWriter implements ImageFileWriter {
  sizeBytes = 0;
  readonly extents: Extents = [];
  ended = false;

  private region: Buffer | undefined;
  private block: Block | undefined;
  /** Bytes in `region` or `block`. */
  private filled = 0;
  /** A block whose chunk is under way and whose tail, beyond `from`, is ours and has nowhere to go yet. */
  private stalled: { readonly block: Block; readonly from: number; readonly to: number } | undefined;
  private reserved = -1;
  private readonly cutter = new Cutter();

  constructor(
    readonly name: string,
    private readonly context: FileWriterContext,
  ) {
    // Page files fill blocks from their first byte on; all other files of CRIU's are small, as a rule.
    if (!name.startsWith('pages-')) this.region = context.regions.first();
  }

  reserve(): Buffer | undefined {
    if (this.context.sink.failure !== undefined) throw this.context.sink.failure;
    if (this.ended) throw this.misuse('reserve memory after its end');
    const target = this.region === undefined ? this.blockWithRoom() : this.regionWithRoom(this.region);
    if (target === undefined) return undefined;
    const memory = target.subarray(this.filled);
    this.reserved = memory.length;
    return memory;
  }

  commit(length: number): void {
    if (length < 0 || length > this.reserved) throw this.misuse('commit more than was reserved');
    this.reserved = -1;
    this.filled += length;
    this.sizeBytes += length;
    if (this.block !== undefined) this.cut();
  }

  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.reserved = -1;
    if (!this.isStalled()) this.finishTail();
  }

  /** Bytes in a block that could be sent off early to free it for others; undefined when there is no such block. */
  get heldBytes(): number | undefined {
    return this.block === undefined || this.reserved >= 0 ? undefined : this.filled;
  }

  /**
   * Give up the block, keeping only what does not fill a page: with every block held by a file that waits for its
   * producer, the one file that could go on would starve.
   */
  yieldBlock(): void {
    const { block } = this;
    if (block === undefined) return;
    const whole = this.filled - (this.filled % PAGE_BYTES);
    const rest = this.filled - whole;
    this.region = this.context.regions.first();
    block.data.copy(this.region, 0, whole, this.filled);
    this.block = undefined;
    this.filled = rest;
    this.cutter.restart();
    if (whole === 0) this.context.giveBlock(block);
    else this.submit(block, whole, () => this.context.giveBlock(block));
  }

  /** Give back what is held, unwritten. */
  discard(): void {
    if (this.block !== undefined) this.context.giveBlock(this.block);
    this.block = undefined;
    this.region = undefined;
    this.stalled = undefined;
    this.ended = true;
  }

  private regionWithRoom(region: Buffer): Buffer | undefined {
    // Small files that wait for a shared chunk hold memory beside the blocks: let it not grow without end.
    if (this.context.packer.backlog > 0) return undefined;
    if (this.filled < region.length) return region;
    const larger = this.context.regions.grown(region, this.filled);
    if (larger !== undefined) {
      this.region = larger;
      return larger;
    }
    const block = this.context.takeBlock();
    if (block === undefined) return undefined;
    region.copy(block.data, 0, 0, this.filled);
    this.context.regions.give(region);
    this.region = undefined;
    this.block = block;
    this.cut();
    return this.blockWithRoom();
  }

  private blockWithRoom(): Buffer | undefined {
    if (this.block === undefined) {
      const block = this.context.takeBlock();
      if (block === undefined) return undefined;
      this.block = block;
      this.filled = 0;
      if (this.stalled !== undefined) {
        const { block: old, from, to } = this.stalled;
        this.filled = old.data.copy(block.data, 0, from, to);
        this.stalled = undefined;
        this.cut();
        return this.blockWithRoom();
      }
    }
    return this.block.data;
  }

  /** Send off every chunk that is complete, moving what follows it to the start of a new block. */
  private cut(): void {
    while (this.block !== undefined) {
      const { block, filled } = this;
      const length = this.cutter.cut(block.words, filled);
      if (length === undefined) return;
      this.block = undefined;
      this.filled = 0;
      this.submit(block, length, () => this.released(block));
      if (length === filled) return;
      this.block = this.context.takeBlock();
      if (this.block === undefined) this.stalled = { block, from: length, to: filled };
      else this.filled = block.data.copy(this.block.data, 0, length, filled);
    }
  }

  /** The chunk of a block is done. When our tail still waits in it, the block stays ours. */
  private released(block: Block): void {
    if (this.stalled?.block !== block) {
      this.context.giveBlock(block);
      return;
    }
    const { from, to } = this.stalled;
    this.stalled = undefined;
    block.data.copyWithin(0, from, to);
    this.block = block;
    this.filled = to - from;
    this.cut();
    // Cutting may have put the rest of the tail into the same position again.
    if (this.ended && !this.isStalled()) this.finishTail();
    this.context.notify();
  }

  private isStalled(): boolean {
    return this.stalled !== undefined;
  }

  private finishTail(): void {
    const { block, region, filled, context } = this;
    this.block = undefined;
    this.region = undefined;
    if (region !== undefined) {
      const release = (): void => context.regions.give(region);
      if (filled === 0) release();
      else context.packer.add(region, filled, this.extents, release);
    } else if (block !== undefined) {
      if (filled === 0) context.giveBlock(block);
      else if (filled < SMALL_FILE_BYTES) context.packer.adopt(block, filled, this.extents);
      else this.submit(block, filled, () => context.giveBlock(block));
    }
  }

  private submit(block: Block, length: number, release: () => void): void {
    const ticket = this.context.sink.newTicket();
    this.extents.push(ticket, 0, length);
    this.context.sink.submit(ticket, block, length, release);
  }

  private misuse(op: string): FastFreezeError {
    return new FastFreezeError({ code: 'internal', op, subject: this.name, reason: 'the caller is wrong' });
  }
}
