// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';
import type { Store } from '../store.js';
import { type Lease, describeHolder, releaseQuietly } from './acquire.js';
import { LEASE_NAME, type LeaseHolder, parseLeaseRecord, serializeLease } from './record.js';

/** `lapsed`: it could not be renewed in time, and another run may take it; `lost`: another run has it. */
export type LeaseState = 'held' | 'lapsed' | 'lost';

export interface HoldOptions {
  /** How old the last writing of it is when we get it. */
  readonly ageMs: number;
  /** Told of every change of state; the reason is a sentence's end. */
  readonly changed: (state: LeaseState, reason: string) => void;
  /** For tests: a clock that only goes forward. */
  readonly nowMs?: () => number;
}

/** A lease that is kept renewed until it is released. */
export interface HeldLease {
  readonly state: LeaseState;
  /** Whether nobody else can have had it until now. False: only `confirm` tells. */
  readonly isFresh: boolean;
  /** Aborted when it is not known to be held any more: what needs it must not be sent then. Another one after each lapse. */
  readonly whileHeld: AbortSignal;
  /**
   * Renew it now: it resolves only when it was still ours. Lost: `conflict`, which says who has it; the store does not
   * answer: its error.
   */
  confirm(): Promise<void>;
  /** Give it up in order. Never throws, and never waits long. */
  release(): Promise<void>;
  /** Renew no more, without giving it up. */
  stop(): void;
}

/** Renewals in one time to live: two may fail before others may take it. */
const RENEWALS = 3;
/** We give ourselves up this much of the time to live before a contender may. */
const MARGIN = 0.1;

export function holdLease(store: Store, lease: Lease, options: HoldOptions): HeldLease {
  return new Held(store, lease, options);
}

class Held implements HeldLease {
  state: LeaseState = 'held';
  private lease: Lease;
  private taken: LeaseHolder | undefined;
  private renewedAtMs: number;
  private renewing: Promise<void> = Promise.resolve();
  private busy = false;
  /** Why the last renewal failed. */
  private failure: string | undefined;
  private lapse = new AbortController();
  private readonly timer: NodeJS.Timeout;
  private readonly nowMs: () => number;

  constructor(
    private readonly store: Store,
    lease: Lease,
    private readonly options: HoldOptions,
  ) {
    this.lease = lease;
    this.nowMs = options.nowMs ?? (() => performance.now());
    this.renewedAtMs = this.nowMs() - options.ageMs;
    const { ttlMs } = lease.record;
    this.timer = setInterval(() => this.tick(), ttlMs / (RENEWALS * 4));
  }

  get isFresh(): boolean {
    // By the clock as well: a process that stood still has not heard of the lapse yet.
    return this.state === 'held' && this.nowMs() - this.renewedAtMs <= this.lease.record.ttlMs * (1 - MARGIN);
  }

  get whileHeld(): AbortSignal {
    return this.lapse.signal;
  }

  confirm(): Promise<void> {
    // One after another: two writings at once would take each other for a rival.
    const turn = this.renewing.then(() => this.renew());
    this.renewing = turn.catch(() => undefined);
    return turn;
  }

  async release(): Promise<void> {
    this.stop();
    if (this.state === 'lost') return;
    const { holder } = this.lease.record;
    if (holder === null) return;
    await releaseQuietly(this.store, holder.id, this.renewing);
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private tick(): void {
    if (this.state === 'lost') return;
    const { ttlMs } = this.lease.record;
    const ageMs = this.nowMs() - this.renewedAtMs;
    if (ageMs > ttlMs * (1 - MARGIN)) this.become('lapsed', this.failure ?? `silent for ${Math.round(ageMs / 1000)} s`);
    if (ageMs < ttlMs / RENEWALS || this.busy) return;
    this.busy = true;
    this.confirm()
      // The next turn tries again; what it means for the job, the state says.
      .catch((error: unknown) => (this.failure = asFastFreezeError(error, 'renew the lease').reason))
      .finally(() => (this.busy = false));
  }

  private async renew(): Promise<void> {
    if (this.state === 'lost') throw this.lostTo();
    const record = { ...this.lease.record, counter: this.lease.record.counter + 1 };
    // A contender counts from when it sees this writing, which is later than now.
    const writtenAtMs = this.nowMs();
    const version = await this.store.replace(LEASE_NAME, serializeLease(record), this.lease.version);
    if (version === undefined) {
      await this.findRival();
      this.become('lost', this.lostTo().reason);
      throw this.lostTo();
    }
    this.lease = { record, version };
    this.renewedAtMs = writtenAtMs;
    this.failure = undefined;
    this.become('held', 'it is renewed');
  }

  private async findRival(): Promise<void> {
    const found = await this.store.readVersion(LEASE_NAME).catch(() => undefined);
    this.taken = (found === undefined ? undefined : parseLeaseRecord(found.bytes))?.holder ?? undefined;
  }

  private become(state: LeaseState, reason: string): void {
    if (state === this.state) return;
    this.state = state;
    if (state === 'held') this.lapse = new AbortController();
    else this.lapse.abort();
    this.options.changed(state, reason);
  }

  private lostTo(): FastFreezeError {
    const by = this.taken === undefined ? 'it was removed or released by somebody else' : describeHolder(this.taken);
    return new FastFreezeError({
      code: 'conflict',
      op: 'commit to',
      subject: this.store.url,
      reason: `another run of this job has its lease now: ${by}`,
      hint: 'the application runs on here, without checkpoints; stop one of the two',
    });
  }
}
