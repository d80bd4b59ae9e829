// SPDX-License-Identifier: Apache-2.0
/* A commit by whoever has the lease, and by whoever had it. */
import { expect, test } from '@jest/globals';
import { FastFreezeError } from '../../../src/base/errors.js';
import { commitUnderLease } from '../../../src/engine/commit.js';
import { type LeaseGuard, UNGUARDED } from '../../../src/engine/lease-guard.js';
import { listGenerations } from '../../../src/image/generations.js';
import type { Store } from '../../../src/store/store.js';
import { makeStore, noise, writeImage } from '../image/support.js';
import { expectCode } from '../store/conformance.js';

const NO_LEASE: LeaseGuard = { ...UNGUARDED, state: 'held' };

const lost = (): Promise<never> =>
  Promise.reject(new FastFreezeError({ code: 'conflict', op: 'commit', reason: 'another run has the lease' }));

test('whoever has lost the lease when the commit is there is not told that it counts', async () => {
  const { store, manifest } = await written();
  await expectCode('conflict', commitUnderLease(store, manifest, { ...NO_LEASE, confirmSince: lost }));
  // The other run may continue from it already.
  expect(await listGenerations(store)).toEqual([1]);
});

test('what was called off by a lapse is tried again with the lease in our hands, and not without', async () => {
  for (const confirm of [lost, () => Promise.resolve()]) {
    const { store, manifest } = await written();
    let whileHeld = new AbortController();
    let asked = 0;
    const away: Store = {
      ...store,
      createIfAbsent(name, bytes, options) {
        if (++asked > 1) return store.createIfAbsent(name, bytes, options);
        const { signal } = options ?? {};
        whileHeld.abort();
        expect(signal?.aborted).toBe(true);
        return Promise.reject(new FastFreezeError({ code: 'aborted', op: 'create', reason: 'asked to stop' }));
      },
    };
    const lease: LeaseGuard = {
      ...NO_LEASE,
      get whileHeld() {
        return whileHeld.signal;
      },
      confirm: async () => {
        await confirm();
        whileHeld = new AbortController();
      },
    };
    const commit = commitUnderLease(away, manifest, lease);
    if (confirm === lost) await expectCode('conflict', commit);
    else expect(await commit).toBe('created');
    expect(await listGenerations(store)).toEqual(confirm === lost ? [] : [1]);
  }
});

async function written(): Promise<{ store: Store; manifest: Awaited<ReturnType<typeof writeImage>>['manifest'] }> {
  const store = makeStore();
  const { manifest } = await writeImage(store, new Map([['pages-1.img', noise(1000, 1)]]), { generation: 1 });
  return { store, manifest };
}
