// SPDX-License-Identifier: Apache-2.0
import { commitManifest } from '../image/generations.js';
import type { Manifest } from '../image/manifest.js';
import type { Store } from '../store/store.js';
import type { LeaseGuard } from './lease-guard.js';

/**
 * Commit a manifest while the lease, which is confirmed, is ours. A store that is away for longer than the lease lasts is not
 * asked again before the lease is ours again: another run may have gone on from an older generation. When another has it,
 * `conflict`. What was on its way may come to stand there all the same. It is not removed: that run may continue from it.
 */
export async function commitUnderLease(
  store: Store,
  manifest: Manifest,
  lease: LeaseGuard,
): Promise<'created' | 'exists'> {
  lease.attempting(manifest.checksum);
  for (let round = 1; ; round++) {
    const outcome = await commitWhileHeld(store, manifest, lease.whileHeld, round === MAX_ROUNDS);
    if (outcome === 'created') await lease.confirmSince();
    if (outcome !== 'lapsed') return outcome;
    await lease.confirm();
  }
}

/** So often a lease may lapse and be renewed. */
const MAX_ROUNDS = 5;

async function commitWhileHeld(
  store: Store,
  manifest: Manifest,
  whileHeld: AbortSignal | undefined,
  isLast: boolean,
): Promise<'created' | 'exists' | 'lapsed'> {
  try {
    return await commitManifest(store, manifest, whileHeld === undefined ? {} : { signal: whileHeld });
  } catch (error) {
    if (isLast || whileHeld?.aborted !== true) throw error;
    return 'lapsed';
  }
}
