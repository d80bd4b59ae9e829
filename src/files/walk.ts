// SPDX-License-Identifier: Apache-2.0
import { type BigIntStats, lstatSync, readdirSync, statfsSync } from 'node:fs';
import { asFastFreezeError, hasErrno } from '../base/errors.js';
import { type BytePath, shown, toBuffer, toBytePath } from './entry.js';
import { isCacheStaging, isManifest, isOurName } from './own-names.js';

export interface Found {
  readonly path: BytePath;
  /** `unread`: we may not look; `images`: images of a job lie there; `left`: not to be carried. */
  readonly kind: 'directory' | 'file' | 'symlink' | 'fifo' | 'absent' | 'left' | 'images' | 'unread';
  /** Undefined when there is nothing. */
  readonly stat: BigIntStats | undefined;
}

/** Everything at and below the roots, a directory before what it holds, names in the order of their bytes. */
export function* walk(roots: readonly BytePath[], except: readonly BytePath[]): Generator<Found> {
  const excepted = new Set(except);
  for (const root of roots) {
    const stat = lstat(root);
    if (stat === undefined) yield { path: root, kind: 'absent', stat };
    else if (stat === 'unread') yield { path: root, kind: stat, stat: undefined };
    else yield* visit(root, stat, undefined, excepted);
  }
}

function* visit(
  path: BytePath,
  stat: BigIntStats,
  deviceAbove: bigint | undefined,
  except: ReadonlySet<BytePath>,
): Generator<Found> {
  if (except.has(path)) {
    yield { path, kind: 'left', stat };
    return;
  }
  const kind = kindOf(stat);
  if (kind !== 'directory') {
    yield { path, kind, stat };
    return;
  }
  const names = stat.dev !== deviceAbove && isKernels(path) ? 'left' : listDirectory(path);
  if (typeof names === 'string') {
    yield { path, kind: names, stat };
    return;
  }
  yield { path, kind, stat };
  for (const name of names) {
    if (isOurName(name) || isCacheStaging(name)) continue;
    const below = path === '/' ? `/${name}` : `${path}/${name}`;
    const found = lstat(below);
    // It has gone since it was listed: somebody else's, since the application stands still.
    if (found === 'unread') yield { path: below, kind: found, stat: undefined };
    else if (found !== undefined) yield* visit(below, found, stat.dev, except);
  }
}

function kindOf(stat: BigIntStats): Found['kind'] {
  if (stat.isDirectory()) return 'directory';
  if (stat.isFile()) return 'file';
  if (stat.isSymbolicLink()) return 'symlink';
  return stat.isFIFO() ? 'fifo' : 'left';
}

function listDirectory(path: BytePath): BytePath[] | 'unread' | 'images' {
  try {
    const names = readdirSync(toBuffer(path), { encoding: 'buffer' }).map(toBytePath).sort();
    return names.some(isManifest) ? 'images' : names;
  } catch (error) {
    if (hasErrno(error, 'EACCES', 'EPERM')) return 'unread';
    if (hasErrno(error, 'ENOENT')) return [];
    throw asFastFreezeError(error, 'preserve', shown(path));
  }
}

function lstat(path: BytePath): BigIntStats | 'unread' | undefined {
  try {
    return lstatSync(toBuffer(path), { bigint: true, throwIfNoEntry: false });
  } catch (error) {
    if (hasErrno(error, 'EACCES', 'EPERM')) return 'unread';
    throw asFastFreezeError(error, 'preserve', shown(path));
  }
}

/** File systems that are windows into the kernel, mounted somewhere below. */
function isKernels(path: BytePath): boolean {
  return KERNEL_FILE_SYSTEMS.has(statfsSync(toBuffer(path)).type);
}

const KERNEL_FILE_SYSTEMS: ReadonlySet<number> = new Set([
  0x9fa0, // proc
  0x62656572, // sysfs
  0x27e0eb, // cgroup
  0x63677270, // cgroup2
  0x1cd1, // devpts
  0x64626720, // debugfs
  0x74726163, // tracefs
  0xcafe4a11, // bpf
]);
