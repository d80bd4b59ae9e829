// SPDX-License-Identifier: Apache-2.0
import { closeSync, constants, fstatSync, ftruncateSync, openSync, read, renameSync, rmSync, write } from 'node:fs';
import { promisify } from 'node:util';
import { hasErrno } from '../base/errors.js';
import { nextData } from '../linux/file-data.js';
import { type BytePath, type FileData, toBuffer } from './entry.js';
import type { DataStream } from './read-list.js';

/** How a file that is there becomes what it was. Applying it keeps the file itself: programs know it by its inode. */
export interface FileUpdate {
  apply(): Promise<void>;
}

export interface UpdatePaths {
  readonly path: BytePath;
  /** For what is to be written, until then. */
  readonly staged: BytePath;
  /** For the file itself while it is neither old nor new. */
  readonly hidden: BytePath;
}

/**
 * Compare a file with its data in the image, and put aside what differs, on the same disk. Nothing has changed before
 * `apply`. Undefined when nothing differs; `unwritable` when the file cannot be written to, and nothing was read.
 */
export async function compareFile(
  paths: UpdatePaths,
  wanted: FileData,
  data: DataStream,
): Promise<FileUpdate | 'unwritable' | undefined> {
  const fd = openIfWritable(paths.path);
  if (fd === undefined) return 'unwritable';
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

type Range = readonly [from: number, to: number, kind: 'staged' | 'zeros'];

class Comparison {
  private readonly sizeBytes: number;
  private readonly buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
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
      const { bytesRead } = await readAt(this.fd, this.buffer, 0, unit.length, offset + at);
      if (bytesRead < unit.length || this.buffer.compare(unit, 0, unit.length, 0, unit.length) !== 0) {
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
      const { bytesRead } = await readAt(this.fd, this.buffer, 0, stop - next.from, next.from);
      if (this.buffer.subarray(0, bytesRead).some((byte) => byte !== 0)) this.ranges.push([next.from, stop, 'zeros']);
      at = stop;
    }
  }

  result(paths: UpdatePaths, sizeBytes: number): FileUpdate | undefined {
    const { ranges } = this;
    if (ranges.length === 0 && sizeBytes === this.sizeBytes) return undefined;
    return { apply: () => applyRanges(paths, ranges, sizeBytes) };
  }

  close(): void {
    closeSync(this.fd);
    if (this.stagedFd !== undefined) closeSync(this.stagedFd);
  }

  private async stage(offset: number, bytes: Uint8Array): Promise<void> {
    this.stagedFd ??= openSync(toBuffer(this.staged), 'wx', 0o600);
    await writeFully(this.stagedFd, bytes, offset);
    this.ranges.push([offset, offset + bytes.length, 'staged']);
  }
}

/**
 * Make the file what it was. Cutting it takes one step; for more it goes under another name meanwhile, so that nobody
 * finds it half done where he looks for it, and comes back as the same file.
 */
async function applyRanges(paths: UpdatePaths, ranges: readonly Range[], sizeBytes: number): Promise<void> {
  const [path, staged, hidden] = [paths.path, paths.staged, paths.hidden].map(toBuffer) as [Buffer, Buffer, Buffer];
  const fd = openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW);
  try {
    const isCut = ranges.length === 0 && sizeBytes < fstatSync(fd).size;
    if (!isCut) renameSync(path, hidden);
    await copyRanges(staged, fd, ranges);
    ftruncateSync(fd, sizeBytes);
    if (!isCut) renameSync(hidden, path);
    rmSync(staged, { force: true });
  } finally {
    closeSync(fd);
  }
}

async function copyRanges(staged: Buffer, fd: number, ranges: readonly Range[]): Promise<void> {
  const from = ranges.some(([, , kind]) => kind === 'staged') ? openSync(staged, 'r') : undefined;
  const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  try {
    for (const [start, end, kind] of ranges) {
      const bytes = buffer.subarray(0, end - start);
      if (kind === 'zeros' || from === undefined) bytes.fill(0);
      else await readAt(from, bytes, 0, bytes.length, start);
      await writeFully(fd, bytes, start);
    }
  } finally {
    if (from !== undefined) closeSync(from);
  }
}

/** Write all of it at a place in a file. */
export async function writeFully(fd: number, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await writeAt(fd, bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
}

/** A file that runs, or that is not ours to write, can only be replaced. */
function openIfWritable(path: BytePath): number | undefined {
  try {
    return openSync(toBuffer(path), constants.O_RDWR | constants.O_NOFOLLOW);
  } catch (error) {
    if (hasErrno(error, 'EACCES', 'ETXTBSY')) return undefined;
    throw error;
  }
}
