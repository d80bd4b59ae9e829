// SPDX-License-Identifier: Apache-2.0
import { type BigIntStats, closeSync, constants, lstatSync, openSync, readlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../base/errors.js';
import { append } from '../image/append.js';
import type { ImageFileWriter } from '../image/image-file-writer.js';
import type { ImageWriter } from '../image/writer.js';
import { readAttributes } from './attributes.js';
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
import { calledOff, dataLength, readFileData } from './file-bytes.js';
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
    if (signal.aborted) throw calledOff();
    await capture.add(found);
    // Everything else of a checkpoint goes on beside this.
    if (++turn % FILES_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  return capture.finish(roots);
}

const FILES_PER_TURN = 64;

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
    let opened: Opened;
    try {
      opened = open(path, stat, kind);
    } catch (error) {
      // Its other names are files of their own then.
      this.linked.delete(`${stat.dev}:${stat.ino}`);
      if (hasErrno(error, 'ENOENT')) return undefined;
      if (!hasErrno(error, 'EACCES', 'EPERM')) throw asFastFreezeError(error, 'preserve', shown(path));
      return this.leaveUnread(path);
    }
    return 'fd' in opened ? await this.file(path, opened) : opened;
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

  /** Once some of it is in the image, a file is not left out any more: the data of all that follow would be others'. */
  private async file(path: BytePath, { fd, attributes }: OpenFile): Promise<FileEntry> {
    try {
      const { writer, signal } = this.options;
      const data = await readFileData(fd, { writer, file: this.data, signal });
      this.dataBytes += dataLength(data);
      return { path, type: 'file', ...attributes, ...data };
    } catch (error) {
      throw asFastFreezeError(error, 'preserve', shown(path));
    } finally {
      closeSync(fd);
    }
  }
}

interface OpenFile {
  readonly fd: number;
  readonly attributes: Attributes;
}

/** All that is to be said of it, or a file whose data are to be read. */
type Opened = FileEntry | OpenFile;

function open(path: BytePath, stat: BigIntStats, kind: 'directory' | 'file' | 'symlink' | 'fifo'): Opened {
  const raw = toBuffer(path);
  const attributes = readAttributes(raw, stat);
  if (kind === 'symlink') {
    return { path, type: kind, target: toBytePath(readlinkSync(raw, { encoding: 'buffer' })), ...attributes };
  }
  if (kind !== 'file') return { path, type: kind, ...attributes };
  return { fd: openSync(raw, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK), attributes };
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
