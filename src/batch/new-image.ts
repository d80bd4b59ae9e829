// SPDX-License-Identifier: Apache-2.0
import { listGenerations, readManifest } from '../image/generations.js';
import { openStore } from '../store/store.js';

/** Whether an attempt that began then has saved something: to be run again gets it further. */
export async function hasNewImage(imageUrl: string, startedAtMs: number): Promise<boolean> {
  const store = openStore(imageUrl);
  const newest = (await listGenerations(store)).at(-1);
  if (newest === undefined) return false;
  const manifest = await readManifest(store, newest);
  return manifest.state === 'checkpoint' && Date.parse(manifest.createdAt) >= startedAtMs;
}
