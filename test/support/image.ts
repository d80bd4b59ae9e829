// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Hash of every file of an image directory, by name: to prove that nothing was touched. */
export function imageHashes(dir: string): Record<string, string> {
  const names = readdirSync(dir, { recursive: true, encoding: 'utf8', withFileTypes: true })
    // The lease is renewed all the time, and no part of an image.
    .filter((entry) => entry.isFile() && !/lease\.json/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  return Object.fromEntries(
    names.map((name) => [name.slice(dir.length + 1), createHash('sha256').update(readFileSync(name)).digest('hex')]),
  );
}

/** The generations that are committed: the numbers of `manifest-<n>.json`. */
export function generations(dir: string): number[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir)
    .map((name) => /^manifest-(\d+)\.json$/.exec(name)?.[1])
    .filter((number) => number !== undefined)
    .map(Number)
    .sort((a, b) => a - b);
}

/** What a writer has not yet given its name. A leading dot: no listing of the image's objects shows it. */
const TEMPORARY = /^\.([\w.-]+\.tmp-[0-9a-f]+|lease\.json\.lock)$/;
const COMMITTED = /^(manifest(-\d+)?\.json|finished(-\d+)?\.json|lease\.json|[\w-]+\.(ffs|ffi|index))$/;

/** Everything in an image directory has the name of a committed object, or, while somebody may be writing, of what he writes. */
export function checkNames(dir: string, options: { readonly writing: boolean } = { writing: false }): void {
  const strange = readdirSync(dir).filter(
    (name) => !COMMITTED.test(name) && !(options.writing && TEMPORARY.test(name)),
  );
  if (strange.length > 0) throw new Error(`strange names in the image: ${strange.join(', ')}`);
}
