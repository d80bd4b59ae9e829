// SPDX-License-Identifier: Apache-2.0
import {
  type Dirent,
  accessSync,
  constants,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../base/errors.js';
import { isBelow, realPath, wrongRoot } from '../files/roots.js';
import {
  allowsExecution,
  bindMount,
  bindTree,
  detachMount,
  mountTmpfs,
  moveMount,
  protectMount,
} from '../linux/mount.js';

/** A file of ours, and the path at which the application is to find it. */
export interface FileBind {
  readonly path: string;
  readonly source: string;
}

/**
 * Make a directory in which files can be put that are then bound elsewhere and run as programs. Where `base` forbids that
 * it is in memory, and `hide` takes it away once everything is bound.
 */
export function makeBindSource(base: string): { readonly path: string; readonly hide: () => void } {
  const path = join(base, 'carried');
  mkdirSync(path, { mode: 0o700 });
  if (allowsExecution(path)) return { path, hide: () => undefined };
  mountTmpfs(path, 0o700);
  return { path, hide: () => detachMount(path) };
}

export interface BindOptions {
  /** An empty directory, or one of which nothing begins with `stand-in-`. */
  readonly workDirectory: string;
  /** Other files that the application reads, which must stay as they are. */
  readonly kept: readonly string[];
  /** Whether we are root with its rights, and may write everywhere. */
  readonly privileged: boolean;
  /** Whether root's application, too, may come to directories in which it can make nothing. */
  readonly allowInexact: boolean;
}

/**
 * Show files of ours at other paths, to this mount namespace only: read-only, over the file that is there. Where there is
 * none, a directory of ours stands in for the one that lacks it: it shows everything that the other has, and in addition
 * the file; nothing can be made or removed right in it. Returns those directories. Throws `conflict`, before anything is
 * mounted, where that would hide from the application that it cannot write.
 */
export function bindFiles(files: readonly FileBind[], options: BindOptions): string[] {
  const places = files.map((file) => ({ ...file, ...findPlace(file.path) }));
  refuseTwins(places, options.kept);
  const standIns = groupByDirectory(places);
  for (const [first] of standIns.values()) refuseStandIn(first, options);
  // The upper ones first: they show what is below them as it is then.
  const directories = [...standIns.keys()].sort();
  for (const [i, directory] of directories.entries()) {
    standIn(directory, standIns.get(directory) as Some<Place>, join(options.workDirectory, `stand-in-${i}`));
  }
  for (const { source, target, path } of places) {
    try {
      bindMount(source, target);
      protectMount(target);
    } catch (error) {
      throw cannotBind(path, asFastFreezeError(error, 'mount').reason, error);
    }
    if (!isSameFile(path, source)) throw cannotBind(path, 'somebody is changing its directory');
  }
  return directories;
}

/**
 * Throw what `bindFiles` would throw before it mounts anything, and mount nothing. `coming` are files and directories that
 * will be made before it is called: what is missing above them is not missed yet.
 */
export function refuseBinds(files: readonly FileBind[], options: BindOptions, coming: readonly string[]): void {
  const places = files.map(({ path }) => findPlace(path));
  refuseTwins(places, options.kept);
  const isComing = ({ directory, rest }: Place): boolean => {
    const missing = join(directory, rest[0]);
    return coming.some((path) => path === missing || isBelow(path, missing));
  };
  for (const [first] of groupByDirectory(places.filter((place) => !isComing(place))).values()) {
    refuseStandIn(first, options);
  }
}

type Some<T> = readonly [T, ...T[]];

/** Of the places at which there is nothing, by the directory that lacks it. */
function groupByDirectory(places: readonly Place[]): Map<string, Some<Place>> {
  const groups = new Map<string, Some<Place>>();
  for (const place of places) {
    if (!place.isThere) groups.set(place.directory, [...(groups.get(place.directory) ?? []), place]);
  }
  return groups;
}

/** Where a path leads on this machine. */
export interface Place {
  readonly path: string;
  /** The deepest directory of the path that is there, without links. */
  readonly directory: string;
  /** The names from there on. */
  readonly rest: readonly [string, ...string[]];
  readonly target: string;
  /** A regular file is at the very place: no link, nothing else. */
  readonly isThere: boolean;
}

/** For tests: look for the place of a path. Throws `conflict` where we may not look. */
export function findPlace(path: string): Place {
  const wrong = wrongRoot(path);
  if (wrong !== undefined) throw cannotBind(path, wrong);
  let rest: [string, ...string[]] = [basename(path)];
  let above = dirname(path);
  let directory = realDirectory(above, path);
  while (directory === undefined) {
    rest = [basename(above), ...rest];
    above = dirname(above);
    directory = realDirectory(above, path);
  }
  const target = join(directory, ...rest);
  // A link would lead to a file that others know by a name of its own.
  const isThere = rest.length === 1 && lstatSync(target, { throwIfNoEntry: false })?.isFile() === true;
  return { path, directory, rest, target, isThere };
}

function realDirectory(path: string, of: string): string | undefined {
  try {
    const real = realpathSync(path);
    return statSync(real).isDirectory() ? real : undefined;
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return undefined;
    throw cannotBind(of, asFastFreezeError(error, 'look').reason, error);
  }
}

/** Two names of the old machine that are one here: both files cannot be there. */
function refuseTwins(places: readonly Place[], kept: readonly string[]): void {
  const paths = new Map(kept.map((path) => [realPath(path), path]));
  for (const { path, target } of places) {
    const other = paths.get(target);
    if (other !== undefined) throw cannotBind(path, `here it is the same file as ${other}`);
    paths.set(target, path);
  }
}

/** Entries of a directory that something stands in for; each is a mount of its own. */
const MAX_ENTRIES = 5000;

/** An application that is used to making files there must not find out in the middle of its work that it cannot. */
function refuseStandIn({ path, directory, rest }: Place, { privileged, allowInexact }: BindOptions): void {
  const what = rest.length === 1 ? `it is not there` : `there is no ${join(directory, rest[0])}`;
  const refuse = (why: string, otherwise = ''): FastFreezeError =>
    new FastFreezeError({
      code: 'conflict',
      op: 'show the application the file in its image',
      subject: path,
      reason: `${what}, and ${why}`,
      hint: `make a place for it: mkdir -p '${dirname(path)}' && touch '${path}'${otherwise}`,
    });
  if (directory === '/') throw refuse('nothing can be put into / without changing it');
  if (isWritable(directory, privileged))
    throw refuse(`nothing can stand in for ${directory}, into which the application may write`);
  if (privileged && !allowInexact) {
    const why = `root may write to ${directory}, and could not to what would stand in for it`;
    throw refuse(why, '; where the application makes nothing right in there, --allow-inexact goes on without');
  }
  let count: number;
  try {
    count = readdirSync(directory).length;
  } catch {
    throw refuse(`${directory} cannot be listed`);
  }
  if (count > MAX_ENTRIES) throw refuse(`${directory} has more than ${MAX_ENTRIES} entries`);
}

/** Root may write everywhere: it surely does so where others may as well, and where another user is at home. */
function isWritable(directory: string, privileged: boolean): boolean {
  const { uid, mode } = statSync(directory);
  if (privileged) return uid !== 0 || (mode & 0o022) !== 0;
  try {
    accessSync(directory, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function standIn(directory: string, places: Some<Place>, work: string): void {
  const [{ path }] = places;
  try {
    mkdirSync(work);
    mountTmpfs(work, statSync(directory).mode & 0o7777);
    const made = new Set(places.map(({ rest }) => rest[0]));
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (!made.has(entry.name)) showEntry(entry, join(directory, entry.name), join(work, entry.name));
    }
    for (const { rest } of places) {
      const target = join(work, ...rest);
      mkdirSync(dirname(target), { recursive: true, mode: 0o755 });
      writeFileSync(target, '', { mode: 0o644 });
    }
    moveMount(work, directory);
    protectMount(directory);
    detachCopy(work);
  } catch (error) {
    // It shows directories of the machine, and whoever removes our temporary files would go through it.
    detachCopy(work);
    throw cannotBind(path, asFastFreezeError(error, 'mount').reason, error);
  }
}

/** With all below it. Once it was moved nothing is left, unless it was made within the very directory, and shows itself once more. */
function detachCopy(work: string): void {
  try {
    detachMount(work);
  } catch (error) {
    if (!hasErrno(error, 'EINVAL')) throw error;
  }
}

function showEntry(entry: Dirent, from: string, to: string): void {
  if (entry.isSymbolicLink()) {
    symlinkSync(readlinkSync(from), to);
    return;
  }
  if (entry.isDirectory()) mkdirSync(to);
  else writeFileSync(to, '');
  bindTree(from, to);
}

function isSameFile(one: string, other: string): boolean {
  const [a, b] = [one, other].map((path) => statSync(path, { bigint: true }));
  return a?.ino === b?.ino && a?.dev === b?.dev;
}

function cannotBind(path: string, reason: string, cause?: unknown): FastFreezeError {
  return new FastFreezeError({
    code: 'conflict',
    op: 'show the application the file in its image',
    subject: path,
    reason,
    hint: 'bring back the version that it had (the same container image or packages)',
    cause,
  });
}
