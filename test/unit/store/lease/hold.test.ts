// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { FastFreezeError } from '../../../../src/base/errors.js';
import { acquireLease, type Lease } from '../../../../src/store/lease/acquire.js';
import { holdLease, type HeldLease, type LeaseState } from '../../../../src/store/lease/hold.js';
import {
  LEASE_NAME,
  parseLeaseRecord,
  type LeaseHolder,
  type LeaseRecord,
} from '../../../../src/store/lease/record.js';
import { createObjectStore } from '../../../../src/store/object/object-store.js';
import type { Store } from '../../../../src/store/store.js';
import { expectCode } from '../conformance.js';
import { MemoryClient } from '../object/memory-client.js';

const TTL_MS = 30_000;

let store: Store;
let down: boolean;
let held: HeldLease;
let changes: { readonly state: LeaseState; readonly reason: string }[];

const holder = (id: string): LeaseHolder => ({ id, host: `host-${id}`, pid: 42, bootId: 'boot' });
const take = (id: string, force = false): Promise<Lease> =>
  acquireLease(store, { holder: holder(id), ttlMs: TTL_MS, waitMs: 0, force, isDead: () => false });

async function current(): Promise<LeaseRecord | undefined> {
  const found = await store.readVersion(LEASE_NAME);
  return found === undefined ? undefined : parseLeaseRecord(found.bytes);
}

beforeEach(async () => {
  jest.useFakeTimers({ doNotFake: ['nextTick', 'setImmediate', 'queueMicrotask'] });
  down = false;
  const before = (): void => {
    if (down) throw new FastFreezeError({ code: 'store', op: 'write', reason: 'the service is down' });
  };
  store = createObjectStore(new MemoryClient({ before }));
  changes = [];
  held = holdLease(store, await take('a'), {
    ageMs: 0,
    changed: (state, reason) => changes.push({ state, reason }),
  });
});

afterEach(() => {
  held.stop();
  jest.useRealTimers();
});

test('it is renewed all the time, so that nobody sees it silent', async () => {
  for (let third = 1; third <= 9; third++) {
    const before = (await current())?.counter ?? 0;
    await jest.advanceTimersByTimeAsync(TTL_MS / 2);
    expect((await current())?.counter).toBeGreaterThan(before);
  }
  expect(held.state).toBe('held');
  expect(changes).toEqual([]);
});

test('it gives itself up before another may take it, and comes back when it can', async () => {
  down = true;
  await jest.advanceTimersByTimeAsync(TTL_MS);
  expect(changes).toEqual([{ state: 'lapsed', reason: 'the service is down' }]);
  await expectCode('store', held.confirm());
  down = false;
  await jest.advanceTimersByTimeAsync(TTL_MS / 6);
  expect(changes.map(({ state }) => state)).toEqual(['lapsed', 'held']);
  await held.confirm();
});

test('once another has it, nothing of ours is confirmed any more', async () => {
  await take('b', true);
  await expectCode('conflict', held.confirm(), 'host-b, process 42');
  expect(changes.map(({ state }) => state)).toEqual(['lost']);
  await expectCode('conflict', held.confirm());
  await held.release();
  expect((await current())?.holder?.id).toBe('b');
});

test('without being asked it learns that another has it', async () => {
  await take('b', true);
  await jest.advanceTimersByTimeAsync(TTL_MS / 2);
  expect(changes.map(({ state }) => state)).toEqual(['lost']);
  expect((await current())?.holder?.id).toBe('b');
});

test('confirmations at once do not take each other for a rival', async () => {
  await Promise.all([held.confirm(), held.confirm(), jest.advanceTimersByTimeAsync(TTL_MS / 3), held.confirm()]);
  expect(held.state).toBe('held');
});

test('released, it is free and stays so', async () => {
  await held.release();
  await jest.advanceTimersByTimeAsync(TTL_MS);
  expect((await current())?.holder).toBeNull();
});

test('released in the middle of a renewal, it is free all the same', async () => {
  const renewal = held.confirm();
  const release = held.release();
  await Promise.all([renewal, release]);
  expect((await current())?.holder).toBeNull();
  expect(changes).toEqual([]);
});

test('one that is old when it comes into our hands lapses accordingly early', async () => {
  held.stop();
  await held.release();
  down = false;
  const late = holdLease(store, await take('c'), {
    ageMs: TTL_MS - 1000,
    changed: (state, reason) => changes.push({ state, reason }),
  });
  down = true;
  await jest.advanceTimersByTimeAsync(TTL_MS / 10);
  late.stop();
  expect(changes.map(({ state }) => state)).toEqual(['lapsed']);
});

test('what needs it is called off when it lapses, and told apart from what it allows when it is renewed', async () => {
  const before = held.whileHeld;
  expect([held.isFresh, before.aborted]).toEqual([true, false]);
  down = true;
  await jest.advanceTimersByTimeAsync(TTL_MS);
  expect([held.isFresh, before.aborted, held.whileHeld.aborted]).toEqual([false, true, true]);
  down = false;
  await held.confirm();
  expect([held.isFresh, before.aborted, held.whileHeld.aborted]).toEqual([true, true, false]);
});

test('after a time in which nothing of ours ran it is not taken for held', async () => {
  // As a machine that was suspended: no timer of ours has told that it lapsed.
  let now = 0;
  const stopped = holdLease(store, await take('b', true), { ageMs: 0, changed: () => undefined, nowMs: () => now });
  expect(stopped.isFresh).toBe(true);
  now = TTL_MS;
  expect([stopped.state, stopped.isFresh]).toEqual(['held', false]);
  await take('c', true);
  await expectCode('conflict', stopped.confirm());
  expect(stopped.whileHeld.aborted).toBe(true);
  stopped.stop();
});
