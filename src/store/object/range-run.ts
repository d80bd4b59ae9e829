// SPDX-License-Identifier: Apache-2.0
import type { RangeBody } from './object-client.js';

/** Bytes between two reads that are cheaper to read and drop than to ask for anew: about what a chunk has. */
export const MAX_SKIP_BYTES = (1 << 20) + 4096;

/** One request from which reads that follow each other are served, in turn. */
export class RangeRun {
  /** Where the next read may begin: all before it is promised to somebody or dropped. */
  private claimed: number;
  private turn: Promise<void> = Promise.resolve();
  private pending = 0;
  private failed = false;

  constructor(
    offset: number,
    private readonly end: number,
    private readonly body: Promise<RangeBody>,
  ) {
    this.claimed = offset;
    body.catch(() => (this.failed = true));
  }

  get isIdle(): boolean {
    return this.pending === 0;
  }

  get isOver(): boolean {
    return this.failed || this.claimed >= this.end;
  }

  /** Whether a read from `offset` of `length` bytes can be served. */
  takes(offset: number, length: number): boolean {
    const gap = offset - this.claimed;
    return !this.failed && gap >= 0 && gap <= MAX_SKIP_BYTES && offset + length <= this.end;
  }

  /** Resolves to false when the request has failed: then these bytes must be asked for anew. */
  read(offset: number, into: Uint8Array): Promise<boolean> {
    const skip = offset - this.claimed;
    this.claimed = offset + into.length;
    this.pending++;
    const mine = this.turn.then(() => this.take(skip, into));
    this.turn = mine.then(() => {
      this.pending--;
    });
    return mine;
  }

  close(): void {
    this.failed = true;
    this.body.then(
      (body) => body.close(),
      () => undefined,
    );
  }

  private async take(skip: number, into: Uint8Array): Promise<boolean> {
    if (this.failed) return false;
    try {
      const body = await this.body;
      await drop(body, skip);
      await body.read(into);
      if (this.claimed >= this.end && this.pending === 1) body.close();
      return true;
    } catch {
      // Asking anew tells what is wrong, and is tried again.
      this.close();
      return false;
    }
  }
}

const DROP_BYTES = 64 * 1024;

async function drop(body: RangeBody, length: number): Promise<void> {
  for (let left = length; left > 0; left -= DROP_BYTES) await body.read(Buffer.allocUnsafe(Math.min(left, DROP_BYTES)));
}
