// SPDX-License-Identifier: Apache-2.0
import type { OpenOptions } from '../object/client-loader.js';
import type { Store } from '../store.js';
import { createCacheStore } from './cache-store.js';
import { parseCacheUrl } from './cache-url.js';
import { readCacheSettings } from './settings.js';

/** The store of `cache:NAME`. Touches nothing yet; where this is no step of an Action, or the URL names no job: `usage`. */
export function openCacheStore(url: string, options: OpenOptions): Store {
  return createCacheStore(parseCacheUrl(url), readCacheSettings(url, process.env), options);
}
