// SPDX-License-Identifier: Apache-2.0
import type { Store } from '../store/store.js';
import { listGenerations } from './generations.js';
import { HINT_NAME, manifestName, parseIndexName, parseShardName } from './names.js';

/**
 * Remove all of a job that has ended: its images, and the record of its end. The manifests go first, the oldest before the newest, so
 * that whatever stops us half-way leaves an image that is whole, or none. What is not of an image is left alone.
 */
export async function dropJob(store: Store): Promise<void> {
  const objects = (await store.list('')).map(({ name }) => name);
  const parts = objects.filter((name) => parseShardName(name) !== undefined || parseIndexName(name) !== undefined);
  for (const generation of await listGenerations(store)) await store.remove(manifestName(generation));
  for (const name of [HINT_NAME, ...parts]) await store.remove(name);
}
