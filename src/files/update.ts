// SPDX-License-Identifier: Apache-2.0
import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  fstatSync,
  ftruncateSync,
  openSync,
  read,
  renameSync,
  rmSync,
  write,
} from 'node:fs';
import { promisify } from 'node:util';
import { FastFreezeError, hasErrno } from '../base/errors.js';
import { nextData } from '../linux/file-data.js';
import { type BytePath, type FileData, shown, toBuffer } from './entry.js';
import type { DataStream } from './read-list.js';

/**
 * How a file that is there becomes what it was. Applying it keeps the file itself: programs know it by its inode. So does
 * every other name of it, which must not be somebody else's.
 */
export interface FileUpdate {
  apply(): Promise<void>;
}

export interface UpdatePaths {
  readonly path: BytePath;
  /** For what is to be written, until then. */
  readonly staged: BytePath;
  /** For the file itself while it is neither old nor new. */
  readonly hidden: BytePath;
  /** Where the file is: at `path`, or, where an earlier restore was interrupted, at `hidden`. */
  readonly current: BytePath;
}

/**
 * Compare a file with its data in the image, and put aside what differs, on the same disk. Nothing has changed before
 * `apply`. Undefined when nothing differs.
 */
export async function compareFile(
  paths: UpdatePaths,
  wanted: FileData,
  data: DataStream,
): Promise<FileUpdate | undefined> {
  const fd = openSync(toBuffer(paths.current), constants.O_RDONLY | constants.O_NOFOLLOW);
  const comparison = new Comparison(fd, paths.staged);
  try {
    let end = 0;
    for (const [offset, length] of wanted.data) {
      await comparison.zeros(end, offset);
      await data.take(length, (bytes, at) => comparison.bytes(offset + at, bytes));
      end = offset + length;
    }
    await comparison.zeros(end, wanted.sizeBytes);
    return comparison.result(paths, wanted.sizeBytes);
  } finally {
    comparison.close();
  }
}

/** Granularity of what differs. */
const UNIT_BYTES = 64 << 10;
const BUFFER_BYTES = 1 << 20;
const readAt = promisify(read);
const writeAt = promisify(write);
/** One for all: files are brought back one after the other. */
let shared: Buffer | undefined;

interface Range {
  readonly from: number;
  to: number;
  readonly kind: 'staged' | 'zeros';
}

class Comparison {
  private readonly sizeBytes: number;
  private readonly buffer = (shared ??= Buffer.allocUnsafeSlow(BUFFER_BYTES));
  private readonly ranges: Range[] = [];
  private stagedFd: number | undefined;

  constructor(
    private readonly fd: number,
    private readonly staged: BytePath,
  ) {
    this.sizeBytes = fstatSync(fd).size;
  }

  async bytes(offset: number, wanted: Uint8Array): Promise<void> {
    for (let at = 0; at < wanted.length; at += UNIT_BYTES) {
      const unit = wanted.subarray(at, at + UNIT_BYTES);
      const got = await readFully(this.fd, this.buffer.subarray(0, unit.length), offset + at);
      if (got < unit.length || this.buffer.compare(unit, 0, unit.length, 0, unit.length) !== 0) {
        await this.stage(offset + at, unit);
      }
    }
  }

  /** Where the image has a hole. What lies beyond the file's end will be zero by itself. */
  async zeros(from: number, to: number): Promise<void> {
    const end = Math.min(to, this.sizeBytes);
    for (let at = from; at < end;) {
      const next = nextData(this.fd, at);
      if (next === undefined || next.from >= end) return;
      const stop = Math.min(next.to, end, next.from + BUFFER_BYTES);
      const got = await readFully(this.fd, this.buffer.subarray(0, stop - next.from), next.from);
      if (this.buffer.subarray(0, got).some((byte) => byte !== 0)) this.note(next.from, stop, 'zeros');
      at = stop;
    }
  }

  result(paths: UpdatePaths, sizeBytes: number): FileUpdate | undefined {
    const { ranges } = this;
    if (ranges.length === 0 && sizeBytes === this.sizeBytes) return undefined;
    const isCut = ranges.length === 0 && sizeBytes < this.sizeBytes;
    return { apply: () => applyRanges(paths, ranges, sizeBytes, isCut) };
  }

  close(): void {
    closeSync(this.fd);
    if (this.stagedFd !== undefined) closeSync(this.stagedFd);
  }

  private async stage(offset: number, bytes: Uint8Array): Promise<void> {
    this.stagedFd ??= openSync(toBuffer(this.staged), 'wx', 0o600);
    await writeFully(this.stagedFd, bytes, offset);
    this.note(offset, offset + bytes.length, 'staged');
  }

  private note(from: number, to: number, kind: Range['kind']): void {
    const last = this.ranges.at(-1);
    if (last?.to === from && last.kind === kind) last.to = to;
    else this.ranges.push({ from, to, kind });
  }
}

/**
 * Make the file what it was. Cutting it takes one step; for more it goes under another name meanwhile, so that nobody
 * finds it half done where he looks for it, and comes back as the same file. One that runs, or that is not ours to write,
 * is replaced by a copy.
 */
async function applyRanges(
  paths: UpdatePaths,
  ranges: readonly Range[],
  sizeBytes: number,
  isCut: boolean,
): Promise<void> {
  const [path, staged, hidden, current] = [paths.path, paths.staged, paths.hidden, paths.current].map(toBuffer) as [
    Buffer,
    Buffer,
    Buffer,
    Buffer,
  ];
  const writable = openIfWritable(current);
  const isHere = current.equals(path);
  // Where the bytes are written: in place, or under the other name, from which it then comes.
  const inPlace = isHere && isCut && writable !== undefined;
  if (writable === undefined) {
    if (!isHere) throw unwritable(paths.hidden);
    copyFileSync(path, hidden);
    chmodSync(hidden, 0o600);
  } else if (isHere && !inPlace) renameSync(path, hidden);
  const fd = writable ?? openSync(hidden, constants.O_WRONLY | constants.O_NOFOLLOW);
  try {
    await copyRanges(staged, fd, ranges);
    ftruncateSync(fd, sizeBytes);
  } finally {
    closeSync(fd);
  }
  if (!inPlace) renameSync(hidden, path);
  rmSync(staged, { force: true });
}

function unwritable(path: BytePath): FastFreezeError {
  return new FastFreezeError({
    code: 'store',
    op: 'go on with the interrupted restore of',
    subject: shown(path),
    reason: 'the file cannot be written any more',
    hint: 'make it writable for the user who restores',
  });
}

async function copyRanges(staged: Buffer, fd: number, ranges: readonly Range[]): Promise<void> {
  const source = ranges.some(({ kind }) => kind === 'staged') ? openSync(staged, 'r') : undefined;
  const buffer = (shared ??= Buffer.allocUnsafeSlow(BUFFER_BYTES));
  try {
    for (const { from, to, kind } of ranges) {
      for (let at = from; at < to;) {
        const piece = buffer.subarray(0, Math.min(BUFFER_BYTES, to - at));
        if (kind === 'zeros' || source === undefined) piece.fill(0);
        else if ((await readFully(source, piece, at)) < piece.length) throw new Error('a staged file was cut short');
        await writeFully(fd, piece, at);
        at += piece.length;
      }
    }
  } finally {
    if (source !== undefined) closeSync(source);
  }
}

/** Fill a buffer from a place in a file; returns fewer bytes at its end only. */
async function readFully(fd: number, into: Uint8Array, offset: number): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await readAt(fd, into, done, into.length - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

/** Write all of it at a place in a file. */
export async function writeFully(fd: number, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await writeAt(fd, bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
}

function openIfWritable(path: Buffer): number | undefined {
  try {
    return openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (hasErrno(error, 'EACCES', 'EPERM', 'ETXTBSY')) return undefined;
    throw error;
  }
}
