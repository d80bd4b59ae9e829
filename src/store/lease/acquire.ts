// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import type { Store } from '../store.js';
import { LEASE_NAME, type LeaseHolder, type LeaseRecord, parseLeaseRecord, serializeLease } from './record.js';

/** A lease that we have written: what it takes to renew it, in this process or another. */
export interface Lease {
  readonly record: LeaseRecord;
  /** The store's mark of that writing. */
  readonly version: string;
}

export interface AcquireOptions {
  readonly holder: LeaseHolder;
  readonly ttlMs: number;
  /** How long to wait for a lease that is held; what is not held is taken at once. */
  readonly waitMs: number;
  /** Take it from whoever has it. */
  readonly force: boolean;
  /** Whether a holder is known to be dead, so that its lease need not be watched. */
  readonly isDead: (holder: LeaseHolder) => boolean;
  /** Told once when it has to be waited for, and for how long at most. */
  readonly waiting?: (holder: LeaseHolder, waitMs: number) => void;
  readonly signal?: AbortSignal;
  /** For tests: a clock that only goes forward, and a sleep by it. */
  readonly nowMs?: () => number;
  readonly sleep?: (ms: number) => Promise<void>;
}

const POLL_MS = 1_000;

/**
 * Take the lease of a place. One that is held is watched on our own clock: unchanged for a whole time to live, its holder
 * is dead or may not commit any more, and it is taken. Held and renewed until `waitMs` is over: `conflict`, which says
 * by whom. Something else under its name: `conflict`, unless `force`.
 */
export async function acquireLease(store: Store, options: AcquireOptions): Promise<Lease> {
  const { holder, ttlMs, waitMs, force, isDead, signal } = options;
  const nowMs = options.nowMs ?? (() => performance.now());
  const sleep = options.sleep ?? ((ms: number) => new Promise((resolve) => setTimeout(resolve, ms)));
  const startMs = nowMs();
  let watched: { readonly version: string; readonly sinceMs: number } | undefined;
  let told = false;
  for (;;) {
    const found = await store.readVersion(LEASE_NAME);
    const current = found === undefined ? undefined : parseLeaseRecord(found.bytes);
    if (found !== undefined && current === undefined && !force) throw notALease(store);
    if (found?.version !== watched?.version) {
      watched = found === undefined ? undefined : { version: found.version, sinceMs: nowMs() };
    }
    const rival = current?.holder ?? undefined;
    const lapsed = current !== undefined && watched !== undefined && nowMs() - watched.sinceMs >= current.ttlMs;
    if (rival === undefined || rival.id === holder.id || force || lapsed || isDead(rival)) {
      const record: LeaseRecord = { holder, ttlMs, counter: (current?.counter ?? 0) + 1 };
      const version = await store.replace(LEASE_NAME, serializeLease(record), found?.version);
      if (version !== undefined) return { record, version };
      // Somebody was faster: see who.
      continue;
    }
    if (nowMs() - startMs >= waitMs) throw held(store, rival);
    if (!told) options.waiting?.(rival, waitMs);
    told = true;
    await sleep(Math.min(POLL_MS, ttlMs / 5));
    if (signal?.aborted === true) throw calledOff(store);
  }
}

/** Say that this run is over. Somebody else's lease stays as it is. */
export async function releaseLease(store: Store, holderId: string): Promise<void> {
  const found = await store.readVersion(LEASE_NAME);
  const current = found === undefined ? undefined : parseLeaseRecord(found.bytes);
  if (found === undefined || current?.holder?.id !== holderId) return;
  const record = { ...current, holder: null, counter: current.counter + 1 };
  await store.replace(LEASE_NAME, serializeLease(record), found.version);
}

/**
 * As `releaseLease`, at the end of a run, after a renewal that is under way: never throws, and does not wait long for a store
 * that does not answer.
 */
export async function releaseQuietly(
  store: Store,
  holderId: string,
  renewing: Promise<void> = Promise.resolve(),
): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => (timer = setTimeout(resolve, RELEASE_TIMEOUT_MS)));
  // Not released, it keeps the next run waiting for one time to live: no more is lost.
  const released = renewing.then(() => releaseLease(store, holderId));
  await Promise.race([released.catch(() => undefined), timeout]);
  clearTimeout(timer);
}

const RELEASE_TIMEOUT_MS = 5_000;

/** `HOST, process PID`, for messages. */
export function describeHolder({ host, pid }: LeaseHolder): string {
  return `${host}, process ${pid}`;
}

function held(store: Store, holder: LeaseHolder): FastFreezeError {
  return new FastFreezeError({
    code: 'conflict',
    op: 'take the lease of',
    subject: store.url,
    reason: `this job runs already (${describeHolder(holder)})`,
    hint: 'end it there, or wait longer with --lease-wait; --force-lease if you know that it is dead',
  });
}

function notALease(store: Store): FastFreezeError {
  return new FastFreezeError({
    code: 'conflict',
    op: 'take the lease of',
    subject: store.url,
    reason: `${LEASE_NAME} is not a lease that this version of fastfreeze knows`,
    hint: 'run the version that wrote it, choose another --image-url, or replace it with --force-lease',
  });
}

function calledOff(store: Store): FastFreezeError {
  return new FastFreezeError({ code: 'aborted', op: 'take the lease of', subject: store.url, reason: 'asked to stop' });
}
