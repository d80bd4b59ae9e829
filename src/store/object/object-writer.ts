// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';
import type { StoreWriter } from '../store.js';
import type { ObjectClient, Upload, UploadedPart } from './object-client.js';
import { PART_BYTES, type PartPool } from './part-pool.js';

export interface ObjectWriterOptions {
  readonly client: ObjectClient;
  readonly name: string;
  readonly parts: PartPool;
}

/** Cuts what is appended into parts and uploads them side by side. What is smaller than a part goes in one request. */
export function createObjectWriter(options: ObjectWriterOptions): Promise<StoreWriter> {
  return Promise.resolve(new ObjectWriter(options));
}

class ObjectWriter implements StoreWriter {
  private readonly life = new AbortController();
  private readonly underWay = new Set<Promise<void>>();
  private readonly arrived: UploadedPart[] = [];
  /** Appends take their turn: bytes keep their order. */
  private turn: Promise<void> = Promise.resolve();
  private filling: Buffer;
  private filled = 0;
  private sentBytes = 0;
  private sentParts = 0;
  private upload: Promise<Upload> | undefined;
  private failure: FastFreezeError | undefined;
  private state: 'open' | 'finished' | 'aborted' = 'open';

  constructor(private readonly options: ObjectWriterOptions) {
    this.filling = options.parts.enter();
  }

  append(parts: readonly Uint8Array[]): Promise<void> {
    if (this.state !== 'open') return Promise.reject(this.misuse());
    const mine = this.turn.then(() => this.copy(parts));
    // A failure is told by each append and by `finish`; the queue itself goes on.
    this.turn = mine.catch((error: unknown) => this.fail(error));
    return mine;
  }

  async finish(): Promise<void> {
    if (this.state !== 'open') throw this.misuse();
    await this.turn;
    this.throwIfFailed();
    const { client, name, parts } = this.options;
    const signal = this.life.signal;
    if (this.upload === undefined) {
      await client.put(name, this.filling.subarray(0, this.filled), { signal, ifAbsent: false });
    } else {
      const upload = await this.upload;
      this.send(this.filling.subarray(0, this.filled), true);
      await Promise.allSettled(this.underWay);
      this.throwIfFailed();
      this.arrived.sort((one, other) => one.number - other.number);
      await client.completeUpload(upload, this.arrived, { signal });
    }
    this.state = 'finished';
    parts.leave(this.filling);
  }

  async abort(): Promise<void> {
    if (this.state !== 'open') return;
    this.state = 'aborted';
    this.life.abort();
    await this.turn;
    await Promise.allSettled(this.underWay);
    this.options.parts.leave(this.filling);
    const upload = await this.upload?.catch(() => undefined);
    // One that stays is removed by the next sweep; there is nobody left to tell.
    if (upload !== undefined) {
      const signal = AbortSignal.timeout(ABORT_TIMEOUT_MS);
      await this.options.client.abortUpload(upload, { signal }).catch(() => undefined);
    }
  }

  private async copy(parts: readonly Uint8Array[]): Promise<void> {
    for (const part of parts) {
      for (let done = 0; done < part.length;) {
        this.throwIfFailed();
        // Only now is it known that this part is not the last.
        if (this.filled === PART_BYTES) await this.sendFull();
        const taken = Math.min(part.length - done, PART_BYTES - this.filled);
        this.filling.set(part.subarray(done, done + taken), this.filled);
        this.filled += taken;
        done += taken;
      }
    }
  }

  private async sendFull(): Promise<void> {
    const { client, name, parts } = this.options;
    this.upload ??= client.beginUpload(name, { signal: this.life.signal });
    await this.upload;
    while (this.underWay.size >= client.maxParallelParts) await Promise.race(this.underWay);
    this.throwIfFailed();
    this.send(this.filling, false);
    this.filled = 0;
    this.filling = await parts.next();
  }

  /** Start a part on its way. The buffer is its own until it has arrived. */
  private send(bytes: Buffer, isLast: boolean): void {
    const part = { number: ++this.sentParts, offset: this.sentBytes, isLast };
    this.sentBytes += bytes.length;
    const sent = this.deliver(part, bytes).finally(() => {
      this.underWay.delete(sent);
      if (!isLast) this.options.parts.give(bytes);
    });
    this.underWay.add(sent);
  }

  private async deliver(
    part: { readonly number: number; readonly offset: number; readonly isLast: boolean },
    bytes: Buffer,
  ): Promise<void> {
    try {
      const upload = await this.upload;
      if (upload === undefined) throw this.misuse();
      this.arrived.push(await this.options.client.putPart(upload, part, bytes, { signal: this.life.signal }));
    } catch (error) {
      this.fail(error);
    }
  }

  private fail(error: unknown): void {
    this.failure ??= asFastFreezeError(error, 'write', `${this.options.client.url}/${this.options.name}`);
  }

  private throwIfFailed(): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.life.signal.aborted) throw this.misuse();
  }

  private misuse(): FastFreezeError {
    return new FastFreezeError({
      code: 'internal',
      op: 'write',
      subject: `${this.options.client.url}/${this.options.name}`,
      reason: `the writer is already ${this.state}`,
    });
  }
}

const ABORT_TIMEOUT_MS = 10_000;
