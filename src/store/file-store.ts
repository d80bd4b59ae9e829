// SPDX-License-Identifier: Apache-2.0
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, rmSync, statSync, type Stats } from 'node:fs';
import { link, mkdir, open, readFile, readdir, rename, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FastFreezeError } from '../base/errors.js';
import { syncDirectory } from './file-io.js';
import { openFileReader } from './file-reader.js';
import { createFileWriter } from './file-writer.js';
import { formatFileUrl } from './file-url.js';
import { MAX_SMALL_BYTES, type ObjectVersion } from './object/object-client.js';
import { assertName, hasCode, storeError } from './store-error.js';
import type { ObjectInfo, Store } from './store.js';

/** Objects as files of one directory. Files are private to their owner: they hold the memory of processes. */
export function createFileStore(directory: string): Store {
  const pathOf = (name: string): string => {
    assertName(name);
    return join(directory, name);
  };

  const store: Store = {
    url: formatFileUrl(directory),
    writesArriveLate: false,
    joinsAtFinish: false,
    partBytes: undefined,
    writeOnce: undefined,

    async prepare() {
      const probe = temporaryPath(directory, 'probe');
      await attempt('prepare', directory, async () => {
        await makeDirectory(directory);
        await writeDurably(probe, Buffer.from('probe'));
        await unlink(probe);
      });
      return { fencing: 'atomic' };
    },

    createWriter(name) {
      const path = pathOf(name);
      return createFileWriter({ directory, path, temporary: temporaryPath(directory, name) });
    },

    async createIfAbsent(name, bytes, options = {}) {
      const path = pathOf(name);
      return attempt('create', path, () =>
        throughTemporary(directory, name, bytes, async (temporary) => {
          try {
            options.signal?.throwIfAborted();
            return await linkExclusively(temporary, path);
          } finally {
            // A second name of the same bytes that stays does no harm: the next sweep removes it.
            await removeIfThere(temporary).catch(() => undefined);
          }
        }),
      );
    },

    async put(name, bytes) {
      const path = pathOf(name);
      await attempt('write', path, () =>
        throughTemporary(directory, name, bytes, (temporary) =>
          rename(temporary, path).catch(async (error: unknown) => {
            await removeIfThere(temporary);
            throw error;
          }),
        ),
      );
    },

    async readVersion(name) {
      const path = pathOf(name);
      return await attempt('read', path, () => readVersionIfThere(path));
    },

    async replace(name, bytes, version) {
      const path = pathOf(name);
      return await attempt('replace', path, async () => {
        await makeDirectory(directory);
        const unlock = await lockFile(join(directory, `.${name}.lock`));
        try {
          const found = (await readVersionIfThere(path))?.version;
          // What stands there instead may be ours, of an earlier try that failed after it had taken effect.
          if (found !== version) return found === versionOf(bytes) ? found : undefined;
          // With the lock in our hands, what lies about under this name is of a writer that was killed.
          await removeTemporaries(directory, (meant) => meant === name, 0);
          await throughTemporary(directory, name, bytes, (temporary) => rename(temporary, path));
          return versionOf(bytes);
        } finally {
          unlock();
        }
      });
    },

    async read(name, offset, into) {
      const reader = await store.openReader(name);
      try {
        await reader.read(offset, into);
      } finally {
        reader.close();
      }
    },

    openReader: (name) => openFileReader(pathOf(name)),

    async size(name) {
      const path = pathOf(name);
      return attempt('look at', path, async () => {
        const found = await statIfThere(path);
        return found?.isFile() === true ? found.size : undefined;
      });
    },

    list: (prefix) => attempt('list', directory, () => listFiles(directory, prefix)),

    async remove(name) {
      const path = pathOf(name);
      await attempt('remove', path, () => removeIfThere(path));
    },

    sweepUnfinished: (isMeant, idleMs) =>
      attempt('sweep', directory, () => removeTemporaries(directory, isMeant, idleMs)),
  };
  return store;
}

/** The dot keeps it out of listings; the random part keeps twins apart. */
const TEMPORARY = /^\.(.+)\.tmp-[0-9a-f]{16}$/;

function temporaryPath(directory: string, name: string): string {
  return join(directory, `.${name}.tmp-${randomBytes(8).toString('hex')}`);
}

function isTemporaryOf(name: string, isMeant: (name: string) => boolean): boolean {
  const object = TEMPORARY.exec(name)?.[1];
  return object !== undefined && isMeant(object);
}

async function removeTemporaries(
  directory: string,
  isMeant: (name: string) => boolean,
  idleMs: number,
): Promise<number> {
  const stale = (await listFiles(directory, '.')).filter(
    (file) => isTemporaryOf(file.name, isMeant) && file.modifiedAtMs <= Date.now() - idleMs,
  );
  for (const file of stale) await removeIfThere(join(directory, file.name));
  return stale.length;
}

async function attempt<T>(op: string, subject: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw storeError(error, op, subject);
  }
}

/**
 * As durable as what will stand in it: a directory that a power failure takes away takes everything with it.
 * Level by level, since Node's own recursion never ends where a parent cannot hold directories (/proc).
 */
async function makeDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { mode: 0o700 });
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return;
    if (!hasCode(error, 'ENOENT') || dirname(directory) === directory) throw error;
    await makeDirectory(dirname(directory));
    await mkdir(directory, { mode: 0o700 }).catch((again: unknown) => {
      if (!hasCode(again, 'EEXIST')) throw again;
    });
  }
  await syncDirectory(dirname(directory)).catch((error: unknown) => {
    // A directory that may be searched but not read cannot be opened to be synced.
    if (!hasCode(error, 'EACCES')) throw error;
  });
}

/** Write a temporary file and show it. Swept away by a neighbour that clears up after its dead, it is written again. */
async function throughTemporary<T>(
  directory: string,
  name: string,
  bytes: Uint8Array,
  show: (temporary: string) => Promise<T>,
): Promise<T> {
  for (let round = 1; ; round++) {
    const temporary = temporaryPath(directory, name);
    await writeDurably(temporary, bytes);
    try {
      const outcome = await show(temporary);
      await syncDirectory(directory);
      return outcome;
    } catch (error) {
      if (round === MAX_ROUNDS || !hasCode(error, 'ENOENT')) throw error;
    }
  }
}

const MAX_ROUNDS = 10;

async function writeDurably(path: string, bytes: Uint8Array): Promise<void> {
  const handle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } catch (error) {
    await removeIfThere(path);
    throw error;
  } finally {
    await handle.close();
  }
}

/** link(2) fails when the name exists, at one instant on every machine that shares the file system. */
async function linkExclusively(temporary: string, path: string): Promise<'created' | 'exists'> {
  try {
    await link(temporary, path);
    return 'created';
  } catch (error) {
    if (hasCode(error, 'EEXIST')) {
      // NFS may repeat a request whose answer got lost: then the name that "exists" is the one just made.
      return (await stat(temporary)).nlink === 2 ? 'created' : 'exists';
    }
    if (!hasCode(error, 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS')) throw error;
    throw new FastFreezeError({
      code: 'store',
      op: 'create',
      subject: path,
      reason: 'the file system has no hard links, which the commit of an image needs',
      hint: 'choose an --image-url on another file system',
      cause: error,
    });
  }
}

/** Who replaces an object has this lock; it goes with the process that holds it. Neighbours hold it for milliseconds. */
async function lockFile(path: string): Promise<() => void> {
  // Only here: who reads manifests needs no native library.
  const { tryLockWhereKnown } = await import('../linux/flock.js');
  const deadlineMs = performance.now() + LOCK_TIMEOUT_MS;
  for (;;) {
    const fd = tryLockWhereKnown(path);
    // Whoever had it before has removed it: then this is a lock on nothing.
    if (fd !== undefined && fstatSync(fd).ino === statSync(path, { throwIfNoEntry: false })?.ino) {
      return () => {
        rmSync(path, { force: true });
        closeSync(fd);
      };
    }
    if (fd !== undefined) closeSync(fd);
    if (performance.now() > deadlineMs) throw lockHeld(path);
    await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
  }
}

const LOCK_TIMEOUT_MS = 30_000;
const LOCK_RETRY_MS = 10;

function lockHeld(path: string): FastFreezeError {
  return new FastFreezeError({
    code: 'conflict',
    op: 'lock',
    subject: path,
    reason: `somebody else has held it for ${LOCK_TIMEOUT_MS / 1000} s`,
    hint: 'see whether a process of fastfreeze hangs there',
  });
}

async function readVersionIfThere(path: string): Promise<ObjectVersion | undefined> {
  const found = await statIfThere(path);
  if (found === undefined) return undefined;
  if (found.size > MAX_SMALL_BYTES) {
    const reason = `with ${found.size} bytes it is none of ours`;
    throw new FastFreezeError({ code: 'image', op: 'read', subject: path, reason });
  }
  try {
    const bytes = await readFile(path);
    return { bytes, version: versionOf(bytes) };
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** No two writers write the same bytes: what says so is their part. */
function versionOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function listFiles(directory: string, prefix: string): Promise<ObjectInfo[]> {
  const names = await readdir(directory).catch((error: unknown) => {
    if (hasCode(error, 'ENOENT')) return [];
    throw error;
  });
  const wanted = names.filter((name) => name.startsWith(prefix) && name.startsWith('.') === prefix.startsWith('.'));
  const found: ObjectInfo[] = [];
  for (const name of wanted.sort()) {
    const file = await statIfThere(join(directory, name));
    if (file?.isFile() === true) found.push({ name, sizeBytes: file.size, modifiedAtMs: file.mtimeMs });
  }
  return found;
}

async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

async function removeIfThere(path: string): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (!hasCode(error, 'ENOENT')) throw error;
  });
}
