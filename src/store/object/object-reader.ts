// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import { truncated } from '../store-error.js';
import type { StoreReader } from '../store.js';
import type { ObjectClient } from './object-client.js';
import { MAX_SKIP_BYTES, RangeRun } from './range-run.js';

/** What one request fetches when reads follow each other: large, so that its latency does not count. */
const RUN_BYTES = 32 << 20;
/** Requests of this kind at a time, for whoever reads an object at several places. */
const MAX_RUNS = 2;
/** Ends of earlier reads that are remembered. */
const MAX_ENDS = 8;

/**
 * Ranges of one object. A read that follows another goes on in one long request, so that the latency of the service is
 * paid once for many chunks; any other read, and any that such a request fails, is a request of its own, tried again.
 */
export function openObjectReader(
  client: ObjectClient,
  name: string,
  sizeBytes: number,
  signal: AbortSignal,
): StoreReader {
  return new ObjectReader(client, name, sizeBytes, signal);
}

class ObjectReader implements StoreReader {
  private readonly subject: string;
  private closed = false;
  /** The one that was used last comes last. */
  private runs: RangeRun[] = [];
  private readonly ends: number[] = [];

  constructor(
    private readonly client: ObjectClient,
    private readonly name: string,
    readonly sizeBytes: number,
    private readonly signal: AbortSignal,
  ) {
    this.subject = `${client.url}/${name}`;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const { client, name, sizeBytes, signal, subject } = this;
    if (this.closed) throw new FastFreezeError({ code: 'aborted', op: 'read', subject, reason: 'closed' });
    if (into.length === 0) return;
    if (offset + into.length > sizeBytes) throw truncated(subject, offset + into.length, sizeBytes);
    const run = this.runFor(offset, into.length);
    if (run !== undefined && (await run.read(offset, into))) return;
    const got = await client.get(name, offset, into, { signal });
    if (got < into.length) throw truncated(subject, offset + into.length, offset + got);
  }

  close(): void {
    this.closed = true;
    for (const run of this.runs.splice(0)) run.close();
  }

  private runFor(offset: number, length: number): RangeRun | undefined {
    this.runs = this.runs.filter((run) => !run.isOver);
    const found = this.runs.find((run) => run.takes(offset, length));
    const run = found ?? this.begin(offset, length);
    this.ends.push(offset + length);
    if (this.ends.length > MAX_ENDS) this.ends.shift();
    if (run !== undefined) this.runs = [...this.runs.filter((one) => one !== run), run];
    return run;
  }

  private begin(offset: number, length: number): RangeRun | undefined {
    if (!this.ends.some((end) => offset >= end && offset - end <= MAX_SKIP_BYTES)) return undefined;
    const end = Math.min(this.sizeBytes, offset + RUN_BYTES);
    // Nothing would follow.
    if (end <= offset + length) return undefined;
    if (this.runs.length >= MAX_RUNS) {
      const unused = this.runs.findIndex((run) => run.isIdle);
      if (unused < 0) return undefined;
      for (const run of this.runs.splice(unused, 1)) run.close();
    }
    return new RangeRun(offset, end, this.client.open(this.name, offset, end - offset, { signal: this.signal }));
  }
}
