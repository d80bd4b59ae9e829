// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import { type FoundJobs, MAX_DEPTH } from '../jobs.js';
import { type BucketPath, type BucketScheme, formatBucketUrl, parseBucketUrl } from './bucket-url.js';
import type { ObjectClient } from './object-client.js';

export interface BucketPlace {
  readonly scheme: BucketScheme;
  readonly place: BucketPath;
}

/** Keys that are looked at: a list of so many takes about half an hour. */
const MAX_KEYS = 5_000_000;

/**
 * As `findJobsBelow` for directories, out of one flat list of keys. Going down folder by folder would ask for a thousand
 * keys and be given the ten that a job has; pages of everything are the fewest requests, and hold nothing in memory.
 */
export async function findJobsInBucket(
  client: ObjectClient,
  { scheme, place }: BucketPlace,
  marks: (name: string) => boolean,
  signal: AbortSignal = new AbortController().signal,
): Promise<FoundJobs> {
  const folders = new Set<string>();
  let seen = 0;
  let page: string | undefined;
  do {
    const { keys, next } = await client.listKeys(page, { signal });
    seen += keys.length;
    if (seen > MAX_KEYS) throw tooMany(client.url);
    for (const key of keys) {
      const segments = key.split('/');
      const isNear = segments.length - 1 <= MAX_DEPTH;
      if (isNear && marks(segments.at(-1) ?? '')) folders.add(key.slice(0, key.lastIndexOf('/') + 1));
    }
    page = next;
  } while (page !== undefined);
  // The root of a bucket is there even when it is empty; a path is nothing but the keys below it.
  if (seen === 0 && place.prefix !== '') throw nothingThere(client.url);
  const found: FoundJobs = { urls: [], unread: [] };
  const urlOf = (prefix: string): string => formatBucketUrl(scheme, { bucket: place.bucket, prefix });
  const prefixes = [...folders].map((folder) => place.prefix + folder);
  for (const prefix of prefixes.sort((one, other) => (urlOf(one) < urlOf(other) ? -1 : 1))) {
    const url = urlOf(prefix);
    const reason = whyNoJob(url, prefix);
    if (reason === undefined) found.urls.push(url);
    else found.unread.push({ url, reason });
  }
  return found;
}

/** Keys can be what no URL of ours leads to, so it was not us who wrote them. */
function whyNoJob(url: string, prefix: string): string | undefined {
  try {
    return parseBucketUrl(url).prefix === prefix ? undefined : 'its path has an empty part';
  } catch (error) {
    if (error instanceof FastFreezeError) return error.reason;
    throw error;
  }
}

function nothingThere(url: string): FastFreezeError {
  return new FastFreezeError({
    code: 'not-found',
    op: 'list',
    subject: url,
    reason: 'nothing is there',
    hint: 'check the URL',
  });
}

function tooMany(url: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'list',
    subject: url,
    reason: `more than ${MAX_KEYS} objects lie below it`,
    hint: 'give a URL closer to the jobs',
  });
}
