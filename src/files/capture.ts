// SPDX-License-Identifier: Apache-2.0
import { type BigIntStats, closeSync, constants, fstatSync, lstatSync, openSync, read, readlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../base/errors.js';
import { append, reserveRoom } from '../image/append.js';
import type { ImageFileWriter } from '../image/image-file-writer.js';
import type { ImageWriter } from '../image/writer.js';
import { nextData } from '../linux/file-data.js';
import { readXattrs } from '../linux/xattr.js';
import {
  type Attributes,
  type BytePath,
  FILES_DATA,
  FILES_LIST,
  type FileEntry,
  formatEntry,
  shown,
  toBuffer,
  toBytePath,
} from './entry.js';
import { joinRoots, realPath, wrongRoot } from './roots.js';
import { type Found, walk } from './walk.js';

export interface CaptureOptions {
  readonly writer: ImageWriter;
  /** Absolute paths of files and directories. */
  readonly roots: readonly string[];
  /** Paths that are not the application's: nothing at or below them is taken. */
  readonly except: readonly string[];
  readonly warn: (message: string) => void;
  readonly signal: AbortSignal;
}

/** What of the application's files is in an image. */
export interface CapturedFiles {
  /** As they are without links. Nothing outside of them is ever touched by a restore. */
  readonly roots: readonly string[];
  readonly entries: number;
  readonly dataBytes: number;
}

/**
 * Put files and directories into an image: names, modes, owners, times, extended attributes, links, and data without
 * their holes. Nobody may change them meanwhile; what vanishes all the same is left out. Throws `store` for a file that
 * could be opened and not be read.
 */
export async function captureFiles(options: CaptureOptions): Promise<CapturedFiles> {
  const { writer, signal } = options;
  const roots = resolveRoots(options.roots);
  const capture = new Capture(options, writer.file(FILES_LIST), writer.file(FILES_DATA));
  let turn = 0;
  for (const found of walk(roots.map(toBytePath), options.except.map(toBytePath))) {
    if (signal.aborted) throw stopped();
    await capture.add(found);
    // Everything else of a checkpoint goes on beside this.
    if (++turn % FILES_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  return capture.finish(roots);
}

const FILES_PER_TURN = 64;
/** Piece of a file that is read at a time; a block of the image may offer more. */
const MAX_READ_BYTES = 1 << 20;

const readAt = promisify(read);

class Capture {
  private entries = 0;
  private dataBytes = 0;
  /** First name of each file that has several. */
  private readonly linked = new Map<string, BytePath>();
  private unread = 0;

  constructor(
    private readonly options: CaptureOptions,
    private readonly list: ImageFileWriter,
    private readonly data: ImageFileWriter,
  ) {}

  async add({ path, stat, kind }: Found): Promise<void> {
    const entry = await this.describe(path, stat, kind);
    if (entry === undefined) return;
    this.entries++;
    await append(this.options.writer, this.list, Buffer.from(formatEntry(entry)));
  }

  finish(roots: readonly string[]): CapturedFiles {
    this.list.end();
    this.data.end();
    const { entries, dataBytes } = this;
    if (this.unread > 1) this.options.warn(`${this.unread} preserved files in all could not be read`);
    return { roots, entries, dataBytes };
  }

  private async describe(
    path: BytePath,
    stat: BigIntStats | undefined,
    kind: Found['kind'],
  ): Promise<FileEntry | undefined> {
    if (kind === 'unread') return this.leaveUnread(path);
    if (stat === undefined || kind === 'absent') return { path, type: 'absent' };
    if (kind === 'images') this.options.warn(`${shown(path)} holds images of a job and is not in the image`);
    if (kind === 'left' || kind === 'images') return { path, type: 'left' };
    const first = this.firstName(path, stat);
    if (first !== undefined) return { path, type: 'hardlink', target: first };
    const raw = toBuffer(path);
    try {
      const attributes = readAttributes(raw, stat);
      if (kind === 'symlink') {
        return { path, type: kind, target: toBytePath(readlinkSync(raw, { encoding: 'buffer' })), ...attributes };
      }
      if (kind !== 'file') return { path, type: kind, ...attributes };
      return await this.file(path, attributes);
    } catch (error) {
      // Its other names are files of their own then.
      this.linked.delete(`${stat.dev}:${stat.ino}`);
      if (hasErrno(error, 'ENOENT')) return undefined;
      if (!hasErrno(error, 'EACCES', 'EPERM')) throw asFastFreezeError(error, 'preserve', shown(path));
      return this.leaveUnread(path);
    }
  }

  /** What its own user cannot read, the application cannot either. */
  private leaveUnread(path: BytePath): FileEntry {
    if (this.unread++ === 0) this.options.warn(`${shown(path)} cannot be read and is not in the image`);
    return { path, type: 'left' };
  }

  private firstName(path: BytePath, stat: BigIntStats): BytePath | undefined {
    if (stat.nlink < 2n || stat.isDirectory()) return undefined;
    const id = `${stat.dev}:${stat.ino}`;
    const first = this.linked.get(id);
    if (first === undefined) this.linked.set(id, path);
    return first;
  }

  private async file(path: BytePath, attributes: Attributes): Promise<FileEntry> {
    const fd = openSync(toBuffer(path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const data: [number, number][] = [];
      let sizeBytes = fstatSync(fd).size;
      for (let next = nextData(fd, 0); next !== undefined && next.from < sizeBytes; next = nextData(fd, next.to)) {
        const to = Math.min(next.to, sizeBytes);
        const length = await this.segment(fd, next.from, to);
        if (length > 0) data.push([next.from, length]);
        // Somebody else has cut it: that is how long it is now.
        if (next.from + length < to) sizeBytes = next.from + length;
      }
      return { path, type: 'file', ...attributes, sizeBytes, data };
    } finally {
      closeSync(fd);
    }
  }

  /** Read straight into the image's memory. Returns fewer bytes than there were only where the file has become shorter. */
  private async segment(fd: number, from: number, to: number): Promise<number> {
    const { writer, signal } = this.options;
    let at = from;
    while (at < to) {
      if (signal.aborted) throw stopped();
      const region = await reserveRoom(writer, this.data);
      let got = 0;
      try {
        got = (await readAt(fd, region, 0, Math.min(region.length, to - at, MAX_READ_BYTES), at)).bytesRead;
      } finally {
        this.data.commit(got);
      }
      if (got === 0) break;
      at += got;
      this.dataBytes += got;
    }
    return at - from;
  }
}

function readAttributes(path: Buffer, stat: BigIntStats): Attributes {
  return {
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    modifiedNs: stat.mtimeNs,
    xattrs: new Map([...readXattrs(path)].filter(([name]) => isCarried(name))),
  };
}

/** Labels of a security module are the machine's. Access control lists are of the kind `system.`. */
function isCarried(xattr: string): boolean {
  return !xattr.startsWith('security.') || xattr === 'security.capability';
}

/**
 * Where the files really are: the kernel, and so CRIU, knows open files by their names without links. A root that is a
 * link itself is kept beside what it leads to.
 */
function resolveRoots(roots: readonly string[]): string[] {
  const resolved = joinRoots(roots.flatMap((root) => [...linkItself(root), realPath(root)]));
  for (const path of resolved) {
    const reason = wrongRoot(path);
    if (reason === undefined) continue;
    // A restore would refuse it: better now than then.
    throw new FastFreezeError({
      code: 'usage',
      op: 'preserve',
      subject: path,
      reason,
      hint: 'a preserved path must not lead there by a link',
    });
  }
  return resolved;
}

function linkItself(root: string): string[] {
  const isLink = lstatSync(root, { throwIfNoEntry: false })?.isSymbolicLink() === true;
  return isLink ? [join(realPath(dirname(root)), basename(root))] : [];
}

function stopped(): FastFreezeError {
  return new FastFreezeError({ code: 'aborted', op: 'preserve files', reason: 'the checkpoint was called off' });
}
