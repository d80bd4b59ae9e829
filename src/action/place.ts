// SPDX-License-Identifier: Apache-2.0
import { jobUrl } from '../store/job-url.js';
import { openStore } from '../store/store.js';
import type { Inputs } from './inputs.js';

const DEFAULT_BASE = 'cache:';

/** Where the images of the job go; GitHub's cache, if nothing is said. Throws `usage` for a URL that nothing can be kept under. */
export function imagePlace({ imageUrl, imageBase }: Pick<Inputs, 'imageUrl' | 'imageBase'>, jobId: string): string {
  const url = imageUrl === '' ? jobUrl(imageBase === '' ? DEFAULT_BASE : imageBase, jobId) : imageUrl;
  return openStore(url).url;
}

/** Entries of the cache cannot be removed: GitHub does that by itself. */
export function isCache(url: string): boolean {
  return url.startsWith('cache:');
}
