// SPDX-License-Identifier: Apache-2.0
import { lstat, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { homeDirectory } from '../../base/home.js';

/** What `criu check` said of one executable; only good news is kept. */
export interface CachedCheck {
  readonly version: string;
  readonly warning?: string;
}

/** The last good checks, so that `run` does not start CRIU twice before the application starts. */
export interface CheckCache {
  read(criu: string): Promise<CachedCheck | undefined>;
  write(criu: string, check: CachedCheck): Promise<void>;
}

export interface CheckCacheOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly privileged: boolean;
  /** Replaces the default place; for tests. */
  readonly directory?: string;
}

/** A cache that never fails anything: whatever cannot be read or written is as if it were not there. */
export function openCheckCache(options: CheckCacheOptions): CheckCache {
  const directory = options.directory ?? cacheDirectory(options.env);
  const file = join(directory, 'criu-check.json');
  return {
    read: async (criu) => {
      const key = await keyOf(criu, options.privileged);
      return key === undefined ? undefined : (await readEntries(directory, file)).get(key);
    },
    write: async (criu, check) => {
      const key = await keyOf(criu, options.privileged);
      if (key === undefined) return;
      const entries = await readEntries(directory, file);
      entries.delete(key);
      entries.set(key, check);
      await writeEntries(directory, file, entries);
    },
  };
}

function cacheDirectory(env: NodeJS.ProcessEnv): string {
  if (process.getuid?.() === 0) return '/run/fastfreeze-criu';
  const cacheHome = env['XDG_CACHE_HOME'];
  if (cacheHome !== undefined && cacheHome.startsWith('/')) return join(cacheHome, 'fastfreeze');
  return join(homeDirectory(env), '.cache/fastfreeze');
}

/** Another kernel, another executable or another user: another answer. */
async function keyOf(criu: string, privileged: boolean): Promise<string | undefined> {
  try {
    const info = await stat(criu);
    const way = privileged ? 'root' : 'user';
    return [release(), criu, info.mtimeMs, info.size, process.getuid?.() ?? -1, way].join('|');
  } catch {
    return undefined;
  }
}

async function readEntries(directory: string, file: string): Promise<Map<string, CachedCheck>> {
  const entries = new Map<string, CachedCheck>();
  try {
    if (!(await isPrivate(directory))) return entries;
    const parsed: unknown = JSON.parse(await readFile(file, 'utf8'));
    if (typeof parsed !== 'object' || parsed === null) return entries;
    for (const [key, value] of Object.entries(parsed)) {
      if (isCachedCheck(value)) entries.set(key, value);
    }
  } catch {
    // Missing, unreadable or cut short: check again.
    return entries;
  }
  return entries;
}

/** An answer in a directory that others may write to is no answer: it would choose what root executes. */
async function isPrivate(directory: string): Promise<boolean> {
  const info = await lstat(directory);
  return info.isDirectory() && info.uid === process.getuid?.() && (info.mode & 0o077) === 0;
}

function isCachedCheck(value: unknown): value is CachedCheck {
  if (typeof value !== 'object' || value === null || !('version' in value)) return false;
  return typeof value.version === 'string' && (!('warning' in value) || typeof value.warning === 'string');
}

/** Old executables' answers go first; nobody has more than a few CRIUs. */
const KEPT_ENTRIES = 16;

async function writeEntries(directory: string, file: string, entries: Map<string, CachedCheck>): Promise<void> {
  const temporary = `${file}.${String(process.pid)}`;
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    if (!(await isPrivate(directory))) return;
    const kept = Object.fromEntries([...entries].slice(-KEPT_ENTRIES));
    await writeFile(temporary, JSON.stringify(kept, null, 2), { mode: 0o600 });
    await rename(temporary, file);
  } catch {
    // A full or read-only disk costs a check at every start, nothing else.
    await rm(temporary, { force: true }).catch(() => undefined);
  }
}
