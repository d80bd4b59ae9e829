// SPDX-License-Identifier: Apache-2.0
import {
  closeSync,
  constants,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  type BigIntStats,
} from 'node:fs';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import type { ImageReader } from '../image/reader.js';
import { makeFifo } from '../linux/fds.js';
import { type AttributeRules, hasAttributes, setAttributes } from './attributes.js';
import { type BytePath, type FileEntry, shown, toBuffer, toBytePath } from './entry.js';
import { SET_ASIDE, hiddenName, isTemporary, stagedName } from './own-names.js';
import { DataStream, readEntries } from './read-list.js';
import { isBelow } from './roots.js';
import { type FileUpdate, compareFile, writeFully } from './update.js';

export interface StageOptions {
  readonly image: ImageReader;
  /** The roots that the image was made of; what it says of files elsewhere is refused. */
  readonly roots: readonly string[];
  /** Paths that are not the application's: they stay as they are. */
  readonly except: readonly string[];
  readonly preserveSetuid: boolean;
  readonly warn: (message: string) => void;
}

/** Files that are complete and verified, beside those that they will replace. */
export interface StagedFiles {
  /** Put all in its place. Each file is at every moment the old one, the new one, or not there: never a half. */
  apply(): Promise<void>;
  /** Remove what was staged. Nothing of it has been seen by anybody. */
  discard(): void;
}

/**
 * Bring preserved files onto this machine's disks, without touching one that is there: an image that turns out to be
 * damaged costs nothing. Files that are as they were stay; others are kept, and told what differs. Throws `image` for
 * an image that says what no image of ours says, `store` for a disk that cannot take it.
 */
export async function stageFiles(options: StageOptions, progress: (bytes: number) => void): Promise<StagedFiles> {
  const stage = new Stage(options);
  try {
    for await (const entry of readEntries(options.image)) {
      await stage.add(entry);
      progress(stage.bytes);
    }
    await stage.end();
    return stage;
  } catch (error) {
    stage.discard();
    throw error;
  } finally {
    stage.close();
  }
}

type DirectoryEntry = FileEntry & { readonly type: 'directory' };

/** A directory whose files are being staged. */
interface OpenDirectory {
  readonly path: BytePath;
  /** Where it is now: in its place, or staged. */
  readonly at: BytePath;
  readonly isNew: boolean;
  /** What it held, of a directory that is there; the root's parent has others too. */
  readonly names: Set<BytePath> | undefined;
  readonly entry: DirectoryEntry | undefined;
  /** Not the application's: nothing in it is touched. */
  readonly isPassed: boolean;
  hasLinks: boolean;
}

const PLAIN = { isPassed: false, hasLinks: false } as const;

class Stage implements StagedFiles {
  private readonly roots: ReadonlySet<BytePath>;
  private readonly except: ReadonlySet<BytePath>;
  private readonly data: DataStream;
  private readonly open: OpenDirectory[] = [];
  private root = '';
  /** What `apply` does, in this order. */
  private readonly changes: (() => void | Promise<void>)[] = [];
  private readonly links: (FileEntry & { type: 'hardlink' })[] = [];
  private readonly last: (() => void)[] = [];
  /** To remove when it comes to nothing. */
  private readonly staged = new Set<BytePath>();
  private readonly missed = new Set<string>();
  private setAsideCount = 0;
  private setAsideIn = '';
  private readonly rules: AttributeRules;

  constructor(private readonly options: StageOptions) {
    this.roots = new Set(options.roots.map(toBytePath));
    this.except = new Set(options.except.map(toBytePath));
    this.data = new DataStream(options.image);
    this.rules = { preserveSetuid: options.preserveSetuid, missed: (what) => this.missed.add(what) };
  }

  get bytes(): number {
    return this.data.bytes;
  }

  async add(entry: FileEntry): Promise<void> {
    const parent = this.parentOf(entry.path);
    const name = lastName(entry.path);
    parent.names?.add(name);
    try {
      if (parent.isPassed || this.except.has(entry.path)) await this.pass(entry);
      else if (parent.isNew) await this.create(entry, `${parent.at}/${name}`, parent);
      else await this.reconcile(entry, `${parent.at}/${name}`, parent);
    } catch (error) {
      throw asFastFreezeError(error, 'bring back', shown(entry.path));
    }
  }

  async end(): Promise<void> {
    while (this.open.length > 0) this.leave();
    await this.data.assertEnd();
  }

  close(): void {
    this.data.close();
  }

  async apply(): Promise<void> {
    try {
      for (const change of this.changes) await change();
      for (const link of this.links) this.link(link);
      for (const finish of this.last) finish();
    } catch (error) {
      throw asFastFreezeError(error, 'bring the preserved files back');
    }
    const { warn } = this.options;
    if (this.setAsideCount > 0) {
      warn(
        `${this.setAsideCount} files and directories that were not there at the checkpoint were set aside, in ${shown(this.setAsideIn)}`,
      );
    }
    if (this.missed.size > 0)
      warn(`of the preserved files could not be brought back here: ${[...this.missed].join(', ')}`);
  }

  discard(): void {
    for (const path of this.staged) remove(path);
  }

  /** The directory that a file belongs into. Directories come before what they hold, so it is one that is open. */
  private parentOf(path: BytePath): OpenDirectory {
    const parentPath = path.slice(0, path.lastIndexOf('/')) || '/';
    for (let top = this.open.at(-1); top !== undefined; top = this.open.at(-1)) {
      if (top.entry !== undefined && top.path === parentPath) return top;
      this.leave();
    }
    if (!this.roots.has(path)) {
      throw new FastFreezeError({
        code: 'image',
        op: 'bring back',
        subject: shown(path),
        reason: 'the image says nothing of its directory, or it lies outside of the preserved paths',
      });
    }
    this.root = path;
    makeParents(parentPath);
    const at = parentPath === '/' ? '' : parentPath;
    const parent = { path: parentPath, at, isNew: false, names: undefined, entry: undefined, ...PLAIN };
    this.open.push(parent);
    return parent;
  }

  /** Nothing of this directory follows. */
  private leave(): void {
    const directory = this.open.pop();
    if (directory?.entry === undefined || directory.isPassed) return;
    const { path, at, entry, names, isNew } = directory;
    // What is put into it later changes its time, and its mode may forbid it.
    if (isNew && !directory.hasLinks) setAttributes(at, 'directory', entry, this.rules);
    else this.last.push(() => setAttributes(path, 'directory', entry, this.rules));
    if (names !== undefined) this.lookForOthers(path, names);
  }

  /** What is in a directory and was not. */
  private lookForOthers(directory: BytePath, names: ReadonlySet<BytePath>): void {
    const device = lstatSync(toBuffer(directory), { bigint: true }).dev;
    for (const raw of readdirSync(toBuffer(directory), { encoding: 'buffer' })) {
      const name = toBytePath(raw);
      const path = `${directory}/${name}`;
      if (names.has(name) || this.except.has(path) || name === SET_ASIDE || this.staged.has(path)) continue;
      if (isTemporary(name)) this.changes.push(() => remove(path));
      else if (lstat(path)?.dev === device) this.setAside(path);
      else this.options.warn(`${shown(path)} was not there at the checkpoint; something is mounted on it, so it stays`);
    }
  }

  /** A file where nothing of the kind is yet: in a directory that is being made, or under a name of ours. */
  private async create(entry: FileEntry, at: BytePath, parent: OpenDirectory): Promise<void> {
    const raw = toBuffer(at);
    switch (entry.type) {
      case 'directory':
        mkdirSync(raw, 0o700);
        this.open.push({ path: entry.path, at, isNew: true, names: undefined, entry, ...PLAIN });
        return;
      case 'file':
        await this.createFile(entry, raw);
        break;
      case 'symlink':
        symlinkSync(toBuffer(entry.target), raw);
        break;
      case 'fifo':
        makeFifo(raw);
        break;
      case 'hardlink':
        this.addLink(entry, parent);
        return;
      case 'absent':
      case 'left':
        return;
    }
    setAttributes(at, entry.type, entry, this.rules);
  }

  private async createFile(entry: FileEntry & { type: 'file' }, at: Buffer): Promise<void> {
    const fd = openSync(at, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
    try {
      for (const [offset, length] of entry.data) {
        await this.data.take(length, (bytes, done) => writeFully(fd, bytes, offset + done));
      }
      ftruncateSync(fd, entry.sizeBytes);
    } finally {
      closeSync(fd);
    }
  }

  /** A file in a directory that is there, where it may be there itself: as it was, changed, or something else. */
  private async reconcile(entry: FileEntry, at: BytePath, parent: OpenDirectory): Promise<void> {
    const paths = {
      path: at,
      staged: `${parent.at}/${stagedName(lastName(at))}`,
      hidden: `${parent.at}/${hiddenName(lastName(at))}`,
    };
    const now = comeBack(at, paths.hidden);
    if (entry.type === 'left') return;
    if (entry.type === 'hardlink') {
      this.addLink(entry, parent);
      return;
    }
    if (entry.type === 'absent') {
      if (now !== undefined) this.setAside(at);
      return;
    }
    remove(paths.staged);
    this.staged.add(paths.staged);
    if (now !== undefined && isOfType(now, entry, at)) {
      if (entry.type === 'directory') {
        const directory = { path: entry.path, at, isNew: false, names: new Set<BytePath>(), entry, ...PLAIN };
        this.open.push(directory);
        return;
      }
      const update = entry.type === 'file' ? await compareFile(paths, entry, this.data) : undefined;
      if (update !== 'unwritable') {
        if (update === undefined) this.staged.delete(paths.staged);
        if (update !== undefined || !hasAttributes(now, entry)) this.keep(entry, at, update);
        return;
      }
    } else if (now !== undefined && (now.isDirectory() || entry.type === 'directory')) this.setAside(at);
    await this.create(entry, paths.staged, parent);
    this.changes.push(() => renameSync(toBuffer(paths.staged), toBuffer(at)));
  }

  private keep(
    entry: Exclude<FileEntry, { type: 'hardlink' | 'absent' | 'left' }>,
    at: BytePath,
    update?: FileUpdate,
  ): void {
    this.changes.push(async () => {
      await update?.apply();
      setAttributes(at, entry.type, entry, this.rules);
    });
  }

  /** What is ours now was the application's when the image was made: another image lies there, for one. */
  private async pass(entry: FileEntry): Promise<void> {
    const { path } = entry;
    if (entry.type === 'directory') {
      this.open.push({ path, at: path, isNew: false, names: undefined, entry, isPassed: true, hasLinks: false });
    }
    if (entry.type !== 'file') return;
    for (const [, length] of entry.data) await this.data.skip(length);
  }

  private addLink(entry: FileEntry & { type: 'hardlink' }, parent: OpenDirectory): void {
    if (![...this.roots].some((root) => entry.target === root || isBelow(entry.target, root)))
      throw damagedBy(entry.target);
    parent.hasLinks = true;
    this.links.push(entry);
  }

  private link({ path, target }: FileEntry & { type: 'hardlink' }): void {
    const [now, wanted] = [lstat(path), lstat(target)];
    if (wanted === undefined || (now !== undefined && now.ino === wanted.ino && now.dev === wanted.dev)) return;
    const parent = path.slice(0, path.lastIndexOf('/'));
    const staged = `${parent}/${stagedName(lastName(path))}`;
    remove(staged);
    linkSync(toBuffer(target), toBuffer(staged));
    if (now?.isDirectory() === true) remove(path);
    renameSync(toBuffer(staged), toBuffer(path));
  }

  /** Out of the application's way, and not lost. */
  private setAside(path: BytePath): void {
    const isInRoot = isBelow(path, this.root);
    const base = isInRoot ? this.root : path.slice(0, path.lastIndexOf('/'));
    const directory = `${base}/${SET_ASIDE}`;
    const target = `${directory}${path.slice(base.length)}`;
    this.setAsideCount++;
    this.setAsideIn = directory;
    this.changes.push(() => {
      makeParents(target.slice(0, target.lastIndexOf('/')));
      remove(target);
      renameSync(toBuffer(path), toBuffer(target));
    });
  }
}

/** What is there; after an interrupted restore it may be under the name that it had while it was changed. */
function comeBack(path: BytePath, hidden: BytePath): BigIntStats | undefined {
  const now = lstat(path);
  if (now !== undefined || lstat(hidden) === undefined) return now;
  renameSync(toBuffer(hidden), toBuffer(path));
  return lstat(path);
}

function isOfType(now: BigIntStats, entry: FileEntry, at: BytePath): boolean {
  switch (entry.type) {
    case 'directory':
      return now.isDirectory();
    case 'file':
      return now.isFile();
    case 'fifo':
      return now.isFIFO();
    case 'symlink':
      return now.isSymbolicLink() && toBytePath(readlinkSync(toBuffer(at), { encoding: 'buffer' })) === entry.target;
    default:
      return false;
  }
}

function makeParents(directory: BytePath): void {
  if (directory !== '' && lstat(directory) === undefined) mkdirSync(toBuffer(directory), { recursive: true });
}

function remove(path: BytePath): void {
  rmSync(toBuffer(path), { recursive: true, force: true });
}

function lstat(path: BytePath): BigIntStats | undefined {
  return lstatSync(toBuffer(path), { bigint: true, throwIfNoEntry: false });
}

function lastName(path: BytePath): BytePath {
  return path.slice(path.lastIndexOf('/') + 1);
}

function damagedBy(path: BytePath): FastFreezeError {
  return new FastFreezeError({
    code: 'image',
    op: 'bring back',
    subject: shown(path),
    reason: 'the image says what no image of ours would say of it',
  });
}
