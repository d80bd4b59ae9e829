// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';

/** Of a cache's keys; with what comes before and after a name, one of ours stays below it. */
const MAX_NAME_BYTES = 250;

/**
 * The job that `cache:NAME` means. Slashes within a name are part of it, those at its ends are not: `--image-base cache:team`
 * and `--job-id train` are `cache:team/train`. Throws `usage`.
 */
export function parseCacheUrl(url: string): string {
  const name = url.slice('cache:'.length).replace(/^\/+|\/+$/gu, '');
  if (name === '') throw bad(url, 'it names no job');
  if (/[\u0000-\u001f\u007f]/u.test(name)) throw bad(url, 'a name has no control characters');
  if (keyText(name).length > MAX_NAME_BYTES) throw bad(url, `a name has at most ${MAX_NAME_BYTES} bytes in a key`);
  return name;
}

export function formatCacheUrl(name: string): string {
  return `cache:${name}`;
}

/**
 * What all keys of a job begin with. A colon ends each part of a key and stands in none, so that no key is the beginning
 * of another job's or object's: the service takes every key for a prefix.
 */
export function keyPrefix(name: string): string {
  return `fastfreeze:${keyText(name)}:`;
}

/** As it is, where it can be read; a comma ends a key, and what else is not plain might not come back as it was. */
function keyText(name: string): string {
  return name.replace(/[^A-Za-z0-9._/@+=-]/gu, (char) => encodeURIComponent(char).replace(/[!'()*]/gu, escape));
}

function escape(char: string): string {
  return `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
}

function bad(url: string, reason: string): FastFreezeError {
  const hint = 'give a name that no other job of the repository has, such as cache:train';
  return new FastFreezeError({ code: 'usage', op: 'use the image URL', subject: JSON.stringify(url), reason, hint });
}
