// SPDX-License-Identifier: Apache-2.0
import { beforeEach, expect, test } from '@jest/globals';
import { acquireLease, releaseLease, type AcquireOptions, type Lease } from '../../../../src/store/lease/acquire.js';
import {
  LEASE_NAME,
  parseLeaseRecord,
  serializeLease,
  type LeaseHolder,
  type LeaseRecord,
} from '../../../../src/store/lease/record.js';
import { createObjectStore } from '../../../../src/store/object/object-store.js';
import type { Store } from '../../../../src/store/store.js';
import { expectCode } from '../conformance.js';
import { MemoryClient } from '../object/memory-client.js';

const TTL_MS = 30_000;

let store: Store;
let nowMs: number;

beforeEach(() => {
  store = createObjectStore(new MemoryClient());
  nowMs = 0;
});

const holder = (id: string): LeaseHolder => ({ id, host: `host-${id}`, pid: 42, bootId: 'boot' });

/** Time passes by waiting only; `meanwhile` is what others do in each wait. */
function acquire(
  id: string,
  options: Partial<AcquireOptions> = {},
  meanwhile?: () => Promise<unknown>,
): Promise<Lease> {
  return acquireLease(store, {
    holder: holder(id),
    ttlMs: TTL_MS,
    waitMs: 2 * TTL_MS,
    force: false,
    isDead: () => false,
    nowMs: () => nowMs,
    sleep: async (ms) => {
      nowMs += ms;
      await meanwhile?.();
    },
    ...options,
  });
}

async function current(): Promise<LeaseRecord | undefined> {
  const found = await store.readVersion(LEASE_NAME);
  return found === undefined ? undefined : parseLeaseRecord(found.bytes);
}

async function renew(lease: Lease): Promise<Lease> {
  const record = { ...lease.record, counter: lease.record.counter + 1 };
  const version = await store.replace(LEASE_NAME, serializeLease(record), lease.version);
  if (version === undefined) throw new Error('the lease of the test was taken');
  return { record, version };
}

test('a free lease is taken at once', async () => {
  const lease = await acquire('a');
  expect(nowMs).toBe(0);
  expect(await current()).toEqual({ holder: holder('a'), ttlMs: TTL_MS, counter: 1 });
  expect(lease.record.counter).toBe(1);
});

test('one that was released is taken at once, and its counter goes on', async () => {
  await acquire('a');
  await releaseLease(store, 'a');
  expect((await current())?.holder).toBeNull();
  await acquire('b');
  expect(nowMs).toBe(0);
  expect(await current()).toEqual({ holder: holder('b'), ttlMs: TTL_MS, counter: 3 });
});

test('a silent one is taken after its time to live, by our own clock', async () => {
  await acquire('a');
  const told: string[] = [];
  await acquire('b', { ttlMs: 5_000, waiting: (other) => told.push(other.host) });
  expect(nowMs).toBeGreaterThanOrEqual(TTL_MS);
  expect(nowMs).toBeLessThan(TTL_MS + 2_000);
  expect((await current())?.holder?.id).toBe('b');
  expect(told).toEqual(['host-a']);
});

test('one that is renewed is refused when the waiting is over, and it is said who has it', async () => {
  let lease = await acquire('a');
  const error = await expectCode(
    'conflict',
    acquire('b', {}, async () => (lease = await renew(lease))),
    'host-a, process 42',
  );
  expect(error.hint).toContain('--force-lease');
  expect(nowMs).toBeGreaterThanOrEqual(2 * TTL_MS);
  expect((await current())?.holder?.id).toBe('a');
});

test('without waiting it is refused at once', async () => {
  await acquire('a');
  await expectCode('conflict', acquire('b', { waitMs: 0 }));
  expect(nowMs).toBe(0);
});

test('one whose holder is known to be dead is taken at once', async () => {
  await acquire('a');
  await acquire('b', { waitMs: 0, isDead: (other) => other.id === 'a' });
  expect((await current())?.holder?.id).toBe('b');
});

test('force takes it, also from something that is no lease', async () => {
  await acquire('a');
  await acquire('b', { waitMs: 0, force: true });
  expect((await current())?.holder?.id).toBe('b');
  await store.put(LEASE_NAME, Buffer.from('{"made": "by another tool"}'));
  await expectCode('conflict', acquire('c'), LEASE_NAME);
  await acquire('c', { force: true });
  expect((await current())?.holder?.id).toBe('c');
});

test('of contenders that saw the same silence one gets it, and the others wait for that one', async () => {
  await acquire('dead');
  const outcomes = await Promise.allSettled(['a', 'b', 'c', 'd'].map((id) => acquire(id, { waitMs: TTL_MS + 5_000 })));
  const winners = outcomes.filter((one) => one.status === 'fulfilled');
  expect(winners).toHaveLength(1);
  expect((await current())?.holder?.id).toBe(winners[0]?.value.record.holder?.id);
});

test('releasing leaves what somebody else has taken', async () => {
  await acquire('a');
  await acquire('b', { force: true });
  await releaseLease(store, 'a');
  expect((await current())?.holder?.id).toBe('b');
});

test.each([
  ['not JSON', '{'],
  ['another format', '{"format":"x","formatVersion":1,"holder":null,"ttlMs":1,"counter":1}'],
  ['a later version', '{"format":"fastfreeze-lease","formatVersion":2,"holder":null,"ttlMs":1,"counter":1}'],
  ['no counter', '{"format":"fastfreeze-lease","formatVersion":1,"holder":null,"ttlMs":1}'],
  ['a holder without an id', '{"format":"fastfreeze-lease","formatVersion":1,"holder":{},"ttlMs":1,"counter":1}'],
])('%s is no lease', (_what, text) => {
  expect(parseLeaseRecord(Buffer.from(text))).toBeUndefined();
});
