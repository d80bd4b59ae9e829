// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { ImageFileReader } from '../image/image-file-reader.js';
import type { Piece } from '../image/pieces.js';
import type { ImageReader } from '../image/reader.js';
import { FILES_DATA, FILES_LIST, type FileEntry, parseEntry } from './entry.js';

/** The entries of a list of an image, in their order, one line in memory at a time. */
export async function* readEntries(image: ImageReader, list = FILES_LIST): AsyncGenerator<FileEntry> {
  const reader = open(image, list);
  let rest: Buffer = Buffer.alloc(0);
  try {
    for (let piece = await reader.next(); piece !== undefined; piece = await reader.next()) {
      const bytes = Buffer.concat([rest, piece.bytes]);
      piece.release();
      let from = 0;
      for (let end = bytes.indexOf(LINE_FEED); end !== -1; end = bytes.indexOf(LINE_FEED, from)) {
        yield parseEntry(bytes.toString('utf8', from, end));
        from = end + 1;
      }
      rest = bytes.subarray(from);
      if (rest.length > MAX_LINE_BYTES) throw damaged('a line is too long');
    }
    if (rest.length > 0) throw damaged('it is cut short');
  } finally {
    reader.close();
  }
}

const LINE_FEED = 10;
/** A sparse file may have very many pieces, each some twenty characters. */
const MAX_LINE_BYTES = 64 << 20;

/** The data of all files, one after the other. */
export class DataStream {
  private readonly reader: ImageFileReader;
  private piece: Piece | undefined;
  private used = 0;
  private takenBytes = 0;

  constructor(image: ImageReader, data = FILES_DATA) {
    this.reader = open(image, data);
  }

  /** Bytes handed out so far. */
  get bytes(): number {
    return this.takenBytes;
  }

  /** Hand the next `length` bytes to `use`, piece by piece, with how far each is from the first. */
  async take(length: number, use: (bytes: Uint8Array, offset: number) => Promise<void>): Promise<void> {
    for (let done = 0; done < length;) {
      const piece = this.piece ?? (await this.nextPiece());
      const bytes = piece.bytes.subarray(this.used, this.used + length - done);
      await use(bytes, done);
      done += bytes.length;
      this.takenBytes += bytes.length;
      this.used += bytes.length;
      if (this.used === piece.bytes.length) this.letGo();
    }
  }

  async skip(length: number): Promise<void> {
    await this.take(length, () => Promise.resolve());
  }

  /** Throws when there are more data than files to have them. */
  async assertEnd(): Promise<void> {
    if (this.piece !== undefined || (await this.reader.next()) !== undefined)
      throw damaged('there are data of no file');
  }

  close(): void {
    this.letGo();
    this.reader.close();
  }

  private async nextPiece(): Promise<Piece> {
    const piece = await this.reader.next();
    if (piece === undefined) throw damaged('it has more files than data');
    this.piece = piece;
    this.used = 0;
    return piece;
  }

  private letGo(): void {
    this.piece?.release();
    this.piece = undefined;
  }
}

function open(image: ImageReader, name: string): ImageFileReader {
  const reader = image.open(name);
  if (reader === undefined) throw damaged(`the image has no ${name}`);
  return reader;
}

function damaged(reason: string): FastFreezeError {
  return new FastFreezeError({ code: 'image', op: 'read the files in the image', reason });
}
