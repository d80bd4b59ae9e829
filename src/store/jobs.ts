// SPDX-License-Identifier: Apache-2.0
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { FastFreezeError } from '../base/errors.js';
import { formatFileUrl } from './file-url.js';
import { hasCode, storeError } from './store-error.js';

export interface FoundJobs {
  /** URLs for `openStore`, in order. */
  readonly urls: string[];
  /** Places that this user may not look into, each with the reason. */
  readonly unread: { readonly url: string; readonly reason: string }[];
}

/** Directories between the prefix and a job: deeper ones are not looked at, nor are links followed. */
export const MAX_DEPTH = 4;
const MAX_DIRECTORIES = 100_000;

/**
 * Every place at or below a directory that holds an object whose name `marks` accepts. A store knows nothing of
 * manifests, so the caller says what makes a place a job.
 */
export async function findJobsBelow(directory: string, marks: (name: string) => boolean): Promise<FoundJobs> {
  const found: FoundJobs = { urls: [], unread: [] };
  let looked = 0;
  const visit = async (path: string, depth: number): Promise<void> => {
    if (++looked > MAX_DIRECTORIES) throw tooMany(directory);
    const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => {
      if (depth === 0) throw unreadable(error, path);
      // What vanished meanwhile is no job any more.
      if (!hasCode(error, 'ENOENT'))
        found.unread.push({ url: formatFileUrl(path), reason: storeError(error, 'list', path).reason });
      return [];
    });
    if (entries.some((entry) => entry.isFile() && marks(entry.name))) found.urls.push(formatFileUrl(path));
    if (depth === MAX_DEPTH) return;
    const below = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
    for (const name of below.sort()) await visit(join(path, name), depth + 1);
  };
  await visit(directory, 0);
  return found;
}

function unreadable(error: unknown, path: string): FastFreezeError {
  if (!hasCode(error, 'ENOENT')) return storeError(error, 'list', path);
  return new FastFreezeError({
    code: 'not-found',
    op: 'list',
    subject: path,
    reason: 'it does not exist',
    hint: 'check the URL',
    cause: error,
  });
}

function tooMany(path: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'list',
    subject: path,
    reason: `more than ${MAX_DIRECTORIES} directories lie below it`,
    hint: 'give a URL closer to the jobs',
  });
}
