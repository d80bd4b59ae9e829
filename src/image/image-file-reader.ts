// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { Block, BlockPool } from './blocks.js';
import type { ChunkCache } from './chunk-cache.js';
import type { ChunkSource } from './chunk-source.js';
import { EXTENT_WORDS, type ImageIndex, type IndexedFile } from './index-format.js';
import { type Piece, SLICE_BYTES, type SliceList, once } from './pieces.js';

/** One file of an image, front to back. */
export interface ImageFileReader {
  readonly sizeBytes: number;
  /**
   * The next bytes, or undefined at the end. One call at a time. Pieces may be released late and in any order: other
   * files go on meanwhile, more slowly.
   */
  next(): Promise<Piece | undefined>;
  /** Drop what was fetched ahead. Pieces that are not released yet stay valid. Idempotent. */
  close(): void;
}

export interface FileReaderContext {
  readonly index: ImageIndex;
  readonly blocks: BlockPool;
  readonly source: ChunkSource;
  readonly cache: ChunkCache;
  readonly slices: SliceList;
  /** Files that are being read and have whole chunks. */
  readonly large: Set<FileReader>;
}

/** With more large files than this being read, none fetches ahead: memory goes to those whose turn it is. */
const MAX_FILES_AHEAD = 3;

/** Chunks of one file that are fetched before they are asked for. */
const PREFETCHED_CHUNKS = 4;
/** Blocks that no file takes for mere prefetching, so that one that begins finds some. */
const SPARE_BLOCKS = 2;
/** Of all the busy blocks one comes free in this time, unless those who hold them wait for somebody themselves. */
const STALL_MS = 50;

interface Ahead {
  readonly block: Block;
  readonly length: number;
  readonly loaded: Promise<void>;
}

export class FileReader implements ImageFileReader {
  readonly sizeBytes: number;
  private readonly ahead: Ahead[] = [];
  /** Position in the extents of what is neither delivered nor fetched ahead. */
  private nextExtent: number;
  private readonly endExtent: number;
  /** Bytes of that extent that are already delivered in slices. */
  private sliced = 0;
  private closed = false;

  constructor(
    private readonly name: string,
    file: IndexedFile,
    private readonly context: FileReaderContext,
  ) {
    this.sizeBytes = file.sizeBytes;
    this.nextExtent = file.firstExtent * EXTENT_WORDS;
    this.endExtent = this.nextExtent + file.extentCount * EXTENT_WORDS;
  }

  async next(): Promise<Piece | undefined> {
    this.assertOpen();
    if (this.wantsBlock()) this.context.large.add(this);
    if (this.ahead.length === 0) {
      if (this.nextExtent === this.endExtent) return undefined;
      const block = this.wantsBlock() ? await this.context.blocks.file.takenUnlessStalled(STALL_MS) : undefined;
      if (this.closed && block !== undefined) this.context.blocks.file.give(block);
      this.assertOpen();
      if (block === undefined) return this.nextSlice();
      this.fetchAhead(block);
    }
    const chunk = this.ahead.shift();
    this.fetchMore();
    return chunk === undefined ? undefined : this.deliver(chunk);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.context.large.delete(this);
    for (const { loaded, block } of this.ahead.splice(0)) {
      const give = (): void => this.context.blocks.file.give(block);
      loaded.then(give, give);
    }
  }

  private assertOpen(): void {
    if (!this.closed) return;
    throw new FastFreezeError({ code: 'aborted', op: 'read the file', subject: this.name, reason: 'it was closed' });
  }

  private fetchMore(): void {
    const { file } = this.context.blocks;
    if (this.context.large.size > MAX_FILES_AHEAD) return;
    while (this.ahead.length < PREFETCHED_CHUNKS && file.free > SPARE_BLOCKS && this.wantsBlock()) {
      const block = file.take();
      if (block === undefined) return;
      this.fetchAhead(block);
    }
  }

  /** Whether the next extent is a whole chunk: a part belongs to many small files, for which the cache fetches it once. */
  private wantsBlock(): boolean {
    if (this.closed || this.nextExtent === this.endExtent || this.sliced > 0) return false;
    const { chunk, offset, length } = this.extent();
    return offset === 0 && length === this.context.index.chunks.rawBytes(chunk);
  }

  private fetchAhead(block: Block): void {
    const { chunk, length } = this.extent();
    this.nextExtent += EXTENT_WORDS;
    const loaded = this.context.source.load(chunk, block);
    loaded.catch(() => undefined); // reported when its turn comes
    this.ahead.push({ block, length, loaded });
  }

  private async deliver({ block, length, loaded }: Ahead): Promise<Piece> {
    const give = (): void => this.context.blocks.file.give(block);
    try {
      await loaded;
    } catch (error) {
      give();
      throw error;
    }
    return { bytes: block.data.subarray(0, length), release: once(give) };
  }

  /**
   * A copy of a piece of a chunk that the cache holds: for small files, and for large ones while others hold every
   * block. Slower, but needs nothing that anybody else could be keeping.
   */
  private async nextSlice(): Promise<Piece> {
    const { chunk, offset, length } = this.extent();
    const start = this.sliced;
    const slice = this.context.slices.take(Math.min(SLICE_BYTES, length - start));
    await this.context.cache.copy(chunk, offset + start, slice.bytes);
    this.sliced = start + slice.bytes.length;
    if (this.sliced === length) {
      this.sliced = 0;
      this.nextExtent += EXTENT_WORDS;
    }
    return slice;
  }

  private extent(): { chunk: number; offset: number; length: number } {
    const { extents } = this.context.index;
    const at = this.nextExtent;
    return { chunk: extents[at] ?? 0, offset: extents[at + 1] ?? 0, length: extents[at + 2] ?? 0 };
  }
}
