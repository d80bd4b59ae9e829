// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { lstat, mkdir, mkdtemp, readdir, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../../base/errors.js';
import { BUILDING_PREFIX, CURRENT_LINK, RUNTIME_PREFIX } from './layout.js';
import { runTool } from './tool.js';

/** Do something in a temporary folder inside the installation's, which is gone afterwards whatever happens. */
export async function withBuildFolder<T>(home: string, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await makeBuildFolder(home);
  try {
    return await work(folder);
  } catch (error) {
    throw asInstallError(error, home);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function makeBuildFolder(home: string): Promise<string> {
  try {
    await mkdir(home, { recursive: true, mode: 0o755 });
    await removeStale(home);
    // Beside its final place: a rename is atomic only within one file system.
    return await mkdtemp(join(home, BUILDING_PREFIX));
  } catch (error) {
    throw asInstallError(error, home);
  }
}

function asInstallError(error: unknown, home: string): FastFreezeError {
  const known = asFastFreezeError(error, 'install into', home);
  if (known.hint !== undefined) return known;
  if (hasErrno(error, 'ENOSPC', 'EDQUOT')) return withHint(known, 'free 150 MB, or name another folder with --dir DIR');
  if (hasErrno(error, 'EACCES', 'EPERM', 'EROFS')) return withHint(known, 'name a folder of yours with --dir DIR');
  return known;
}

function withHint(known: FastFreezeError, hint: string): FastFreezeError {
  const subject = known.subject === undefined ? {} : { subject: known.subject };
  return new FastFreezeError({ code: 'host', op: known.op, ...subject, reason: known.reason, hint, cause: known });
}

/** No install takes as long as this; what is older was interrupted by a crash. */
const STALE_AFTER_MS = 2 * 60 * 60 * 1000;

async function removeStale(home: string): Promise<void> {
  for (const name of await readdir(home)) {
    if (!name.startsWith(BUILDING_PREFIX)) continue;
    const path = join(home, name);
    const info = await lstat(path).catch(() => undefined);
    if (info !== undefined && Date.now() - info.mtimeMs > STALE_AFTER_MS) {
      await rm(path, { recursive: true, force: true });
    }
  }
}

const SYNC_TIMEOUT_MS = 60_000;

/**
 * Give a finished tree its name, then switch `current` to it. Both are renames, so that at any moment, and
 * however many installs run at once, `current` is absent or names a whole runtime.
 * Resolves to whether the tree is new: the same one may have been there, or another install been faster.
 */
export async function publish(home: string, built: string, id: string, replace: boolean): Promise<boolean> {
  // A rename must not reach the disk before the files do; where sync cannot, a crash right now is the only risk.
  await runTool(['sync', '-f', built], { timeoutMs: SYNC_TIMEOUT_MS });
  const { name, isNew } = await moveIntoPlace(home, built, `${RUNTIME_PREFIX}${id}`, replace);
  const link = join(home, `${BUILDING_PREFIX}link-${randomBytes(6).toString('hex')}`);
  await symlink(name, link);
  await rename(link, join(home, CURRENT_LINK));
  return isNew;
}

interface Placed {
  readonly name: string;
  readonly isNew: boolean;
}

async function moveIntoPlace(home: string, built: string, wanted: string, replace: boolean): Promise<Placed> {
  for (let attempt = 1; ; attempt++) {
    const name = attempt === 1 ? wanted : `${wanted}.${attempt}`;
    try {
      await rename(built, join(home, name));
      return { name, isNew: true };
    } catch (error) {
      if (!hasErrno(error, 'ENOTEMPTY', 'EEXIST')) throw error;
      // The same packages are there. Never overwrite them: a job may be running from that folder.
      if (!replace) return { name, isNew: false };
    }
  }
}
