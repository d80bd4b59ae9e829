// SPDX-License-Identifier: Apache-2.0
import { closeSync, lstatSync, rmSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '../../base/errors.js';
import { tryLockDirectory, tryLockLeftDirectory } from '../../linux/flock.js';
import { leftForLater } from './left-for-later.js';

const PREFIX = 'fastfreeze-cache-';

/** A directory in which objects are put together, of one process: its lock tells that it lives, and ends with it, however it ends. */
export class StagingDirectory {
  private readonly onExit = (): void => this.removeNow();

  private constructor(
    /** Named without links, as the client's tools see it. Nobody else may enter it. */
    readonly path: string,
    private readonly lockFd: number,
  ) {
    process.once('exit', this.onExit);
  }

  /** Make one in `base`, and remove those of processes that were killed. Throws errors of the system. */
  static async make(base: string): Promise<StagingDirectory> {
    await mkdir(base, { recursive: true });
    const parent = await realpath(base);
    await removeLeft(parent);
    for (;;) {
      const path = await mkdtemp(join(parent, PREFIX));
      const fd = lockOwn(path);
      if (fd !== undefined) return new StagingDirectory(path, fd);
    }
  }

  async remove(): Promise<void> {
    process.off('exit', this.onExit);
    await rm(this.path, { recursive: true, force: true, maxRetries: 3 }).catch(leftForLater);
    closeSync(this.lockFd);
  }

  private removeNow(): void {
    try {
      rmSync(this.path, { recursive: true, force: true });
    } catch {
      leftForLater();
    }
  }
}

/** Undefined where another process, which starts as well, has taken it for one that was left. */
function lockOwn(path: string): number | undefined {
  try {
    const fd = tryLockDirectory(path);
    if (fd === undefined) return undefined;
    if (statSync(path, { throwIfNoEntry: false }) !== undefined) return fd;
    closeSync(fd);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
  return undefined;
}

async function removeLeft(parent: string): Promise<void> {
  const names = await readdir(parent).catch(() => []);
  for (const name of names) {
    if (name.startsWith(PREFIX)) await removeIfLeft(join(parent, name)).catch(leftForLater);
  }
}

async function removeIfLeft(path: string): Promise<void> {
  const stat = lstatSync(path);
  // Where everybody may write, anybody may have made one of that name.
  if (!stat.isDirectory() || stat.uid !== process.getuid?.()) return;
  const fd = tryLockLeftDirectory(path);
  if (fd === undefined) return;
  try {
    await rm(path, { recursive: true, force: true });
  } finally {
    closeSync(fd);
  }
}
