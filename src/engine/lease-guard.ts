// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { readTree } from '../container/tree.js';
import { listGenerations } from '../image/generations.js';
import { acquireLease } from '../store/lease/acquire.js';
import { type HeldLease, type LeaseState, holdLease } from '../store/lease/hold.js';
import { type OpenOptions, type Store, openStore } from '../store/store.js';
import { CommitFence } from './commit-fence.js';
import type { SupervisorConfig } from './config.js';

/** What stands between this run and a commit. Without a lease (nobody else can run the job) it lets everything pass. */
export interface LeaseGuard {
  /** Undefined without a lease. */
  readonly state: LeaseState | 'missing' | undefined;
  /** Before anything is frozen: fail now if the commit would be refused. */
  check(): Promise<void>;
  /** Right before a commit: ours, as of this moment, or `conflict`. */
  confirm(): Promise<void>;
  /** After a commit that may have taken long: was it ours until now? `conflict` if not. */
  confirmSince(): Promise<void>;
  /** Aborted when a commit must not be sent any more; undefined where nothing can come between. */
  readonly whileHeld: AbortSignal | undefined;
  /** A manifest of this checksum is about to be committed, whether or not we learn that it was. */
  attempting(checksum: string): void;
  /** This run has committed it. */
  committed(generation: number): void;
  /** CRIU has let go of the application. */
  appGoesOn(): void;
  /** The run is over. */
  release(): Promise<void>;
}

export interface GuardedApp {
  /** The first process, once there is one. */
  readonly pid: () => number | undefined;
  /** Another run goes on with the job, and --strict-lease says that then this one may not. */
  readonly end: (error: FastFreezeError) => void;
}

/** Where nobody else can run the job: everything passes. */
export const UNGUARDED: LeaseGuard = {
  state: undefined,
  check: () => Promise.resolve(),
  confirm: () => Promise.resolve(),
  confirmSince: () => Promise.resolve(),
  whileHeld: undefined,
  attempting: () => undefined,
  committed: () => undefined,
  appGoesOn: () => undefined,
  release: () => Promise.resolve(),
};

export function guardLease(config: SupervisorConfig, log: Logger, app: GuardedApp, opening: OpenOptions): LeaseGuard {
  if (config.knownGeneration !== undefined) {
    return new CommitFence(openStore(config.imageUrl, opening), config.knownGeneration);
  }
  if (config.lease === undefined) return UNGUARDED;
  const store = openStore(config.imageUrl, opening);
  return new Guard(store, config.lease, log, app, config.restoreGeneration ?? 0);
}

class Guard implements LeaseGuard {
  private held: HeldLease | undefined;
  private readonly stopped = new Set<number>();

  constructor(
    private readonly store: Store,
    private readonly options: NonNullable<SupervisorConfig['lease']>,
    private readonly log: Logger,
    private readonly app: GuardedApp,
    /** What this run continues; 0 from scratch. */
    private readonly knownGeneration: number,
  ) {
    const { lease, ageMs } = options;
    if (lease === undefined) return;
    this.held = holdLease(store, lease, { ageMs, changed: (state, reason) => this.changed(state, reason) });
  }

  get state(): LeaseState | 'missing' {
    return this.held?.state ?? 'missing';
  }

  get whileHeld(): AbortSignal | undefined {
    return this.held?.whileHeld;
  }

  async check(): Promise<void> {
    if (this.state !== 'held') await this.confirm();
  }

  async confirm(): Promise<void> {
    if (this.held !== undefined) {
      await this.held.confirm();
      return;
    }
    // It could not be taken at the start. Only one that nobody holds is taken now: the application cannot wait.
    const { holder, ttlMs } = this.options;
    const lease = await acquireLease(this.store, { holder, ttlMs, waitMs: 0, force: false, isDead: () => false });
    const held = holdLease(this.store, lease, {
      ageMs: 0,
      changed: (state, reason) => this.changed(state, reason),
    });
    try {
      await this.refuseIfBehind();
    } catch (error) {
      await held.release();
      throw error;
    }
    this.held = held;
  }

  async confirmSince(): Promise<void> {
    if (this.held?.isFresh !== true) await this.confirm();
  }

  /** Without the lease another run may have gone further and ended: then ours is not the job's state any more. */
  private async refuseIfBehind(): Promise<void> {
    const newest = (await listGenerations(this.store)).at(-1) ?? 0;
    if (newest <= this.knownGeneration) return;
    throw new FastFreezeError({
      code: 'conflict',
      op: 'commit to',
      subject: this.store.url,
      reason: `another run has committed generation ${newest} since this one started without a lease`,
      hint: 'end this run; the same command continues from there',
    });
  }

  attempting(): void {
    // As below.
  }

  committed(): void {
    // Whoever has the lease knows that nobody else has gone further.
  }

  appGoesOn(): void {
    // While CRIU held it, it could not be stopped.
    if (this.options.strict && this.state === 'lapsed') this.stop();
  }

  async release(): Promise<void> {
    await this.held?.release();
  }

  private changed(state: LeaseState, reason: string): void {
    const { strict } = this.options;
    const { url } = this.store;
    if (state === 'held') {
      this.log.info(`The lease of ${url} is renewed again`);
      this.letGoOn();
    } else if (state === 'lapsed') {
      const meanwhile = strict ? 'is stopped until it is renewed' : 'runs on; checkpoints need it';
      this.log.warn(`the lease of ${url} may be lost (${reason}): the application ${meanwhile}`);
      if (strict) this.stop();
    } else if (strict) {
      this.app.end(lostStrictly(url, reason));
    } else {
      this.log.warn(`${reason}; the application runs on here, and commits nothing any more`);
    }
  }

  /** Stop the whole tree: what a process starts before its turn comes is found in the next round. */
  private stop(): void {
    const root = this.app.pid();
    if (root === undefined) return;
    for (let round = 0; round < STOP_ROUNDS; round++) {
      const running = readTree(root).filter(({ pid, state }) => !this.stopped.has(pid) && !/^[TtZX]$/.test(state));
      if (running.length === 0) return;
      for (const { pid } of running) {
        if (signalled(pid, 'SIGSTOP')) this.stopped.add(pid);
      }
    }
  }

  private letGoOn(): void {
    for (const pid of this.stopped) signalled(pid, 'SIGCONT');
    this.stopped.clear();
  }
}

const STOP_ROUNDS = 20;

function signalled(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    // It has ended.
    return false;
  }
}

function lostStrictly(url: string, reason: string): FastFreezeError {
  return new FastFreezeError({
    code: 'conflict',
    op: 'go on with the application of',
    subject: url,
    reason,
    hint: 'it goes on there; --strict-lease ended it here',
  });
}
