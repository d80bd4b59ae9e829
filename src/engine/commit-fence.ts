// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { listGenerations, readManifest } from '../image/generations.js';
import type { Store } from '../store/store.js';
import type { LeaseGuard } from './lease-guard.js';

/**
 * What keeps twins apart where nobody can hold a lease: of all runs that continue one generation the first that commits
 * the next has the job, and no other can commit any more. Each runs until it wants to; only one gets further.
 */
export class CommitFence implements LeaseGuard {
  readonly state = undefined;
  readonly whileHeld = undefined;
  /** Checksums of manifests that we have tried to commit: of one that failed only the answer may have got lost. */
  private readonly tried = new Set<string>();

  constructor(
    private readonly store: Store,
    /** The newest that this run knows: it continues it, or has made it. */
    private knownGeneration: number,
  ) {}

  check(): Promise<void> {
    return this.confirm();
  }

  async confirm(): Promise<void> {
    const newest = (await listGenerations(this.store)).at(-1) ?? 0;
    if (newest <= this.knownGeneration) return;
    if (this.tried.size > 0 && this.tried.has((await readManifest(this.store, newest)).checksum)) {
      this.knownGeneration = newest;
      return;
    }
    throw new FastFreezeError({
      code: 'conflict',
      op: 'commit to',
      subject: this.store.url,
      reason: `another run of this job has committed generation ${newest}, and this one does not continue it`,
      hint: 'end this run; the same command continues from there',
    });
  }

  confirmSince(): Promise<void> {
    // Whose commit stands has the job.
    return Promise.resolve();
  }

  attempting(checksum: string): void {
    this.tried.add(checksum);
  }

  committed(generation: number): void {
    this.knownGeneration = generation;
    this.tried.clear();
  }

  appGoesOn(): void {
    // Each runs until it wants to.
  }

  release(): Promise<void> {
    return Promise.resolve();
  }
}
