// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
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
  symlinkSync,
  type BigIntStats,
} from 'node:fs';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../base/errors.js';
import type { ImageReader } from '../image/reader.js';
import { makeFifo } from '../linux/fds.js';
import { type AttributeRules, hasAttributes, setAttributes, wouldChange } from './attributes.js';
import { type BytePath, type FileEntry, shown, toBuffer, toBytePath } from './entry.js';
import { SET_ASIDE, hiddenName, holdsImages, isCacheStaging, isOurName, isStaged, stagedName } from './own-names.js';
import { DataStream, readEntries } from './read-list.js';
import { remove } from './remove.js';
import { isBelow } from './roots.js';
import { unshare } from './unshare.js';
import { type FileUpdate, type UpdatePaths, compareFile, writeFully } from './update.js';

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
  /** Whether anything that is there would be changed or moved: then the rest of the image must be good before it is. */
  readonly overwrites: boolean;
  /** Put all in its place. Each file is at every moment the old one, the new one, or not there: never a half. */
  apply(): Promise<void>;
  /** Remove what was staged. Nothing of it has been seen by anybody. Never throws. */
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
  /** Of what it holds, the name that came last. */
  lastName: BytePath;
}

const PLAIN = { isPassed: false, hasLinks: false, lastName: '' };

class Stage implements StagedFiles {
  private readonly roots: ReadonlySet<BytePath>;
  private readonly except: ReadonlySet<BytePath>;
  private readonly data: DataStream;
  private readonly open: OpenDirectory[] = [];
  /** What `apply` does, in this order. */
  private readonly changes: (() => void | Promise<void>)[] = [];
  private readonly links: (FileEntry & { type: 'hardlink' })[] = [];
  /** The other names that files have in the image. */
  private readonly otherNames = new Map<BytePath, BytePath[]>();
  /** Files that are there, were found by an entry, and have other names. */
  private readonly severalNames = new Set<string>();
  private readonly last: (() => void)[] = [];
  /** To remove when it comes to nothing. */
  private readonly staged = new Set<BytePath>();
  private readonly missed = new Set<string>();
  private readonly rootsSeen = new Set<BytePath>();
  private readonly stamp = `${new Date().toISOString().replace(/\D/g, '').slice(0, 14)}-${randomBytes(3).toString('hex')}`;
  private setAsideCount = 0;
  private setAsideIn = '';
  overwrites = false;
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
    // In the order in which they were captured: none twice, and none of ours.
    if ((isOurName(name) && parent.entry !== undefined) || name <= parent.lastName) throw damagedBy(entry.path);
    parent.lastName = name;
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
    for (const path of this.staged) {
      try {
        remove(path);
      } catch (error) {
        // Why it came to nothing is what is to be told. The next restore tries again.
        this.options.warn(asFastFreezeError(error, 'remove', shown(path)).message);
      }
    }
  }

  /** The directory that a file belongs into. Directories come before what they hold, so it is one that is open. */
  private parentOf(path: BytePath): OpenDirectory {
    const above = parentPath(path) || '/';
    for (let top = this.open.at(-1); top !== undefined; top = this.open.at(-1)) {
      if (top.entry !== undefined && top.path === above) return top;
      this.leave();
    }
    if (!this.roots.has(path) || this.rootsSeen.has(path)) {
      throw new FastFreezeError({
        code: 'image',
        op: 'bring back',
        subject: shown(path),
        reason: 'the image says nothing of its directory, or it lies outside of the preserved paths',
      });
    }
    this.rootsSeen.add(path);
    makeParents(above);
    const at = above === '/' ? '' : above;
    const parent = { path: above, at, isNew: false, names: undefined, entry: undefined, ...PLAIN };
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
      if (isCacheStaging(name)) continue;
      if (isStaged(name)) this.changes.push(() => remove(path));
      else if (holdsImages(path)) this.options.warn(`${shown(path)} holds images and stays, although it is new`);
      else if (lstat(path)?.dev === device) this.setAside(path, 'if it can be');
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
    const [staged, hidden] = [stagedName(lastName(at)), hiddenName(lastName(at))].map(
      (name) => `${parent.at}/${name}`,
    ) as [BytePath, BytePath];
    // After an interrupted restore a file may be under the name that it had while it was changed.
    const isHidden = lstat(at) === undefined && lstat(hidden) !== undefined;
    const paths = { path: at, staged, hidden, current: isHidden ? hidden : at };
    if (isHidden) parent.names?.add(lastName(hidden));
    const now = lstat(paths.current);
    if (entry.type === 'left') return;
    if (entry.type === 'hardlink') {
      this.addLink(entry, parent);
      return;
    }
    if (entry.type === 'absent') {
      if (now !== undefined) this.setAside(paths.current, 'surely');
      return;
    }
    remove(paths.staged);
    this.staged.add(paths.staged);
    if (now !== undefined && isOfType(now, entry, paths.current)) {
      if (entry.type === 'directory') {
        const directory = { path: entry.path, at, isNew: false, names: new Set<BytePath>(), entry, ...PLAIN };
        this.open.push(directory);
        return;
      }
      const update = entry.type === 'file' ? await compareFile(paths, entry, this.data) : undefined;
      // The update takes this name, and whatever has it is not to be lost: half a copy, or a file of the user's.
      if (update !== undefined && !isHidden && lstat(hidden) !== undefined) {
        parent.names?.add(lastName(hidden));
        this.setAside(hidden, 'surely');
      }
      if (update === undefined) this.staged.delete(paths.staged);
      if (update !== undefined) this.overwrites = true;
      else if (isHidden) this.changes.push(() => renameSync(toBuffer(hidden), toBuffer(at)));
      const isDouble = entry.type === 'file' && this.isDouble(now);
      if (update !== undefined || isDouble || !hasAttributes(now, entry)) {
        this.keep(entry, at, { update, paths, isDouble });
      }
      return;
    }
    if (now !== undefined) this.overwrites = true;
    if (now !== undefined && (now.isDirectory() || entry.type === 'directory')) this.setAside(paths.current, 'surely');
    await this.create(entry, paths.staged, parent);
    this.changes.push(() => renameSync(toBuffer(paths.staged), toBuffer(at)));
  }

  private keep(
    entry: Exclude<FileEntry, { type: 'hardlink' | 'absent' | 'left' }>,
    at: BytePath,
    { update, paths, isDouble }: { update: FileUpdate | undefined; paths: UpdatePaths; isDouble: boolean },
  ): void {
    this.changes.push(async () => {
      const { hidden, current } = paths;
      const path = update === undefined ? at : current;
      const isTouched = update !== undefined || isDouble || wouldChange(path, entry.type, entry, this.rules);
      if (entry.type === 'file' && isTouched && this.isShared(path, entry.path)) {
        await unshare(path, `${parentPath(hidden)}/${stagedName(lastName(hidden))}`);
      }
      await update?.apply();
      setAttributes(at, entry.type, entry, this.rules);
    });
  }

  /** Whether another entry, a file of its own in the image, is this same file now: what is written to one later would be in both. */
  private isDouble(now: BigIntStats): boolean {
    if (now.nlink < 2n) return false;
    const id = `${now.dev}:${now.ino}`;
    const isDouble = this.severalNames.has(id);
    this.severalNames.add(id);
    return isDouble;
  }

  /**
   * Whether a file has names now that the image does not give it, in the preserved paths or elsewhere: they are others'
   * files, a backup perhaps, and what is done to this one would be done to them.
   */
  private isShared(path: BytePath, inImage: BytePath): boolean {
    const now = lstat(path);
    if (now === undefined || now.nlink < 2n) return false;
    const own = (this.otherNames.get(inImage) ?? []).filter((name) => isSameFile(lstat(name), now));
    return now.nlink > BigInt(1 + own.length);
  }

  /** What is ours now was the application's when the image was made: another image lies there, for one. */
  private async pass(entry: FileEntry): Promise<void> {
    const { path } = entry;
    if (entry.type === 'directory') {
      this.open.push({ path, at: path, isNew: false, names: undefined, entry, ...PLAIN, isPassed: true });
    }
    if (entry.type !== 'file') return;
    for (const [, length] of entry.data) await this.data.skip(length);
  }

  private addLink(entry: FileEntry & { type: 'hardlink' }, parent: OpenDirectory): void {
    if (![...this.roots].some((root) => entry.target === root || isBelow(entry.target, root)))
      throw damagedBy(entry.target);
    parent.hasLinks = true;
    this.links.push(entry);
    const names = this.otherNames.get(entry.target) ?? [];
    this.otherNames.set(entry.target, names);
    names.push(entry.path);
  }

  private link({ path, target }: FileEntry & { type: 'hardlink' }): void {
    const [now, wanted] = [lstat(path), lstat(target)];
    // A link of the image on the way would lead it elsewhere.
    if (!this.isPlain(target) || wanted?.isDirectory() === true) throw damagedBy(target);
    if (wanted === undefined || isSameFile(now, wanted)) return;
    const parent = path.slice(0, path.lastIndexOf('/'));
    const staged = `${parent}/${stagedName(lastName(path))}`;
    remove(staged);
    linkSync(toBuffer(target), toBuffer(staged));
    if (now?.isDirectory() === true) this.moveAside(path);
    renameSync(toBuffer(staged), toBuffer(path));
  }

  /** Whether no directory between a root and a file below it is a symbolic link. */
  private isPlain(path: BytePath): boolean {
    const root = [...this.roots].find((one) => path === one || isBelow(path, one));
    if (root === undefined) return false;
    for (let one = parentPath(path); one.length >= root.length; one = parentPath(one)) {
      if (lstat(one)?.isDirectory() !== true) return false;
    }
    return true;
  }

  /** Out of the application's way, and not lost. What only somebody else can move stays, with a word. */
  private setAside(path: BytePath, how: 'surely' | 'if it can be'): void {
    this.overwrites = true;
    this.changes.push(() => {
      if (lstat(path) === undefined) return;
      try {
        this.moveAside(path);
      } catch (error) {
        // Somebody was faster: it is out of the way.
        if (hasErrno(error, 'ENOENT') && lstat(path) === undefined) return;
        if (how === 'surely' || !hasErrno(error, 'EPERM', 'EACCES', 'EBUSY', 'EXDEV', 'EROFS')) throw error;
        this.options.warn(`${shown(path)} was not there at the checkpoint and cannot be set aside: it stays`);
      }
    });
  }

  /** Into a folder of this restore's own: what an earlier one set aside stays as well. */
  private moveAside(path: BytePath): void {
    const parent = parentPath(path);
    const isNear = isBelow(path, this.rootOf(path)) && lstat(this.rootOf(path))?.dev === lstat(parent)?.dev;
    const base = isNear ? this.rootOf(path) : parent;
    const directory = `${base}/${SET_ASIDE}`;
    const target = `${directory}/${this.stamp}${path.slice(base.length)}`;
    makeParents(directory);
    // Through a link it would leave the place that it belongs to.
    if (lstat(directory)?.isDirectory() !== true) throw damagedBy(directory);
    makeParents(parentPath(target));
    renameSync(toBuffer(path), toBuffer(target));
    this.setAsideCount++;
    this.setAsideIn = directory;
  }

  private rootOf(path: BytePath): BytePath {
    return [...this.roots].find((root) => path === root || isBelow(path, root)) ?? path;
  }
}

function parentPath(path: BytePath): BytePath {
  return path.slice(0, path.lastIndexOf('/'));
}

function isSameFile(one: BigIntStats | undefined, other: BigIntStats): boolean {
  return one?.ino === other.ino && one.dev === other.dev;
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
