// SPDX-License-Identifier: Apache-2.0
import { PART_BYTES } from './object/part-pool.js';
import type { Store } from './store.js';

/** A store whose code is loaded by its first use: a cloud's SDK costs tenths of a second and tens of megabytes. */
export function lazyStore(url: string, joinsAtFinish: boolean, load: () => Promise<Store>): Store {
  let loaded: Promise<Store> | undefined;
  const store = (): Promise<Store> => {
    loaded ??= load().catch((error: unknown) => {
      // Out of descriptors or memory for a moment: the next call tries again.
      loaded = undefined;
      throw error;
    });
    return loaded;
  };
  return {
    url,
    // What is loaded lazily is a cloud's.
    writesArriveLate: true,
    joinsAtFinish,
    partBytes: PART_BYTES,
    writeOnce: undefined,
    prepare: async () => (await store()).prepare(),
    createWriter: async (name) => (await store()).createWriter(name),
    createIfAbsent: async (name, bytes, options) => (await store()).createIfAbsent(name, bytes, options),
    put: async (name, bytes) => (await store()).put(name, bytes),
    readVersion: async (name) => (await store()).readVersion(name),
    replace: async (name, bytes, version) => (await store()).replace(name, bytes, version),
    read: async (name, offset, into) => (await store()).read(name, offset, into),
    openReader: async (name, sizeBytes) => (await store()).openReader(name, sizeBytes),
    size: async (name) => (await store()).size(name),
    list: async (prefix) => (await store()).list(prefix),
    remove: async (name) => (await store()).remove(name),
    sweepUnfinished: async (isMeant, idleMs) => (await store()).sweepUnfinished(isMeant, idleMs),
  };
}
