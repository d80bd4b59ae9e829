// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { fstatSync, read } from 'node:fs';
import { promisify } from 'node:util';
import { FastFreezeError } from '../base/errors.js';
import { reserveRoom } from '../image/append.js';
import type { ImageFileWriter } from '../image/image-file-writer.js';
import type { ImageWriter } from '../image/writer.js';
import { nextData } from '../linux/file-data.js';
import type { FileData } from './entry.js';

export interface ReadInto {
  readonly writer: ImageWriter;
  readonly file: ImageFileWriter;
  readonly signal: AbortSignal;
  /** Given all that is read. */
  readonly hash?: FileHash | undefined;
}

/**
 * Append what a file holds, without its holes, to a file of an image: read straight into the image's memory. Returns
 * where the data were. A file that somebody cuts meanwhile is as long as it is then.
 */
export async function readFileData(fd: number, into: ReadInto): Promise<FileData> {
  const data: [number, number][] = [];
  let sizeBytes = fstatSync(fd).size;
  for (let next = nextData(fd, 0); next !== undefined && next.from < sizeBytes; next = nextData(fd, next.to)) {
    const to = Math.min(next.to, sizeBytes);
    // While none of the image's memory is held for it.
    await into.hash?.fill(next.from, into.signal);
    const length = await readSegment(fd, next.from, to, into);
    if (length > 0) data.push([next.from, length]);
    if (next.from + length < to) sizeBytes = next.from + length;
  }
  return { sizeBytes, data };
}

export function dataLength({ data }: FileData): number {
  return data.reduce((sum, [, length]) => sum + length, 0);
}

/** Piece of a file that is read at a time; a block of the image may offer more. */
const MAX_READ_BYTES = 1 << 20;

const readAt = promisify(read);

/** Returns fewer bytes than there were only where the file has become shorter. */
async function readSegment(fd: number, from: number, to: number, into: ReadInto): Promise<number> {
  const { writer, file, signal, hash } = into;
  let at = from;
  while (at < to) {
    if (signal.aborted) throw calledOff();
    const region = await reserveRoom(writer, file);
    let got = 0;
    try {
      got = (await readAt(fd, region, 0, Math.min(region.length, to - at, MAX_READ_BYTES), at)).bytesRead;
      hash?.add(region.subarray(0, got));
    } finally {
      file.commit(got);
    }
    if (got === 0) break;
    at += got;
  }
  return at - from;
}

/** SHA-256 of a file of which only the data are seen, in their order: all else of it is zeroes. */
export class FileHash {
  private readonly hash = createHash('sha256');
  private at = 0;

  /** What follows in the file. */
  add(bytes: Uint8Array): void {
    this.hash.update(bytes);
    this.at += bytes.length;
  }

  /** Up to there is a hole. One of many GiB takes minutes: everything else goes on meanwhile, and `signal` calls it off. */
  async fill(to: number, signal?: AbortSignal): Promise<void> {
    for (let turnEnd = this.at + TURN_BYTES; this.at < to;) {
      const length = Math.min(ZEROES.length, to - this.at);
      this.hash.update(ZEROES.subarray(0, length));
      this.at += length;
      if (this.at < turnEnd) continue;
      turnEnd = this.at + TURN_BYTES;
      await new Promise((resolve) => setImmediate(resolve));
      if (signal?.aborted === true) throw calledOff();
    }
  }

  /** In hexadecimal digits. Once. */
  async finish(sizeBytes: number, signal?: AbortSignal): Promise<string> {
    await this.fill(sizeBytes, signal);
    return this.hash.digest('hex');
  }
}

const ZEROES = Buffer.alloc(64 << 10);
/** Some hundredths of a second of hashing. */
const TURN_BYTES = 32 << 20;

export function calledOff(): FastFreezeError {
  return new FastFreezeError({ code: 'aborted', op: 'preserve files', reason: 'the checkpoint was called off' });
}
