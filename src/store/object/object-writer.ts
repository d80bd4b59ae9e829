// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';
import type { StoreWriter } from '../store.js';
import type { ObjectClient, Upload, UploadedPart } from './object-client.js';
import type { PartPool } from './part-pool.js';

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
  /** Ours to fill; undefined while we wait for the next one. */
  private filling: Buffer | undefined;
  private filled = 0;
  private sentBytes = 0;
  private sentParts = 0;
  private upload: Promise<Upload> | undefined;
  private failure: FastFreezeError | undefined;
  private state: 'open' | 'finishing' | 'finished' | 'aborted' = 'open';
  private finishing: Promise<void> | undefined;
  private aborting: Promise<void> | undefined;
  /** The object may have appeared, whether or not we were told. */
  private mayBeThere = false;

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

  finish(): Promise<void> {
    if (this.state !== 'open') return Promise.reject(this.misuse());
    this.state = 'finishing';
    this.finishing = this.show();
    return this.finishing;
  }

  abort(): Promise<void> {
    if (this.state === 'finished') return Promise.resolve();
    this.state = 'aborted';
    this.aborting ??= this.clear();
    return this.aborting;
  }

  private async show(): Promise<void> {
    await this.turn;
    this.throwIfFailed();
    const { client, name } = this.options;
    const signal = this.life.signal;
    const rest = this.filling?.subarray(0, this.filled) ?? Buffer.alloc(0);
    if (this.upload === undefined) {
      this.mayBeThere = true;
      await client.put(name, rest, { signal, ifAbsent: false });
    } else {
      const upload = await this.upload;
      await this.waitForTurn();
      this.send(rest, { isLast: true });
      await Promise.allSettled(this.underWay);
      this.throwIfFailed();
      this.arrived.sort((one, other) => one.number - other.number);
      this.mayBeThere = true;
      await client.completeUpload(upload, this.arrived, { signal });
    }
    // Called off while the last request was on its way: `abort` removes what has come of it.
    this.throwIfFailed();
    this.state = 'finished';
    this.leave();
  }

  private async clear(): Promise<void> {
    const { client, name } = this.options;
    this.life.abort(this.misuse());
    await this.turn;
    await this.finishing?.catch(() => undefined);
    await Promise.allSettled(this.underWay);
    this.leave();
    const upload = await this.upload?.catch(() => undefined);
    const signal = AbortSignal.timeout(ABORT_TIMEOUT_MS);
    // What stays is removed by the next sweep; there is nobody left to tell.
    if (upload !== undefined) await client.abortUpload(upload, { signal }).catch(() => undefined);
    if (this.mayBeThere) await client.remove(name, { signal }).catch(() => undefined);
  }

  private leave(): void {
    if (this.filling !== undefined) this.options.parts.give(this.filling);
    this.filling = undefined;
    this.options.parts.leave();
  }

  private async copy(parts: readonly Uint8Array[]): Promise<void> {
    for (const part of parts) {
      for (let done = 0; done < part.length;) {
        this.throwIfFailed();
        // Only now is it known that this part is not the last.
        if (this.filling === undefined || this.filled === this.filling.length) await this.sendFull();
        if (this.filling === undefined) throw this.misuse();
        const taken = Math.min(part.length - done, this.filling.length - this.filled);
        this.filling.set(part.subarray(done, done + taken), this.filled);
        this.filled += taken;
        done += taken;
      }
    }
  }

  private async sendFull(): Promise<void> {
    const { client, name, parts } = this.options;
    const signal = this.life.signal;
    this.upload ??= client.beginUpload(name, { signal });
    await this.upload;
    await this.waitForTurn();
    const full = this.filling;
    if (full === undefined) throw this.misuse();
    this.filling = undefined;
    this.filled = 0;
    this.send(full, { isLast: false });
    this.filling = await parts.next(signal);
  }

  /** Until one more part may be on its way. */
  private async waitForTurn(): Promise<void> {
    while (this.underWay.size >= this.options.client.maxParallelParts) await Promise.race(this.underWay);
    this.throwIfFailed();
  }

  /** Start a part on its way. A full buffer belongs to the part until it has arrived; the last one stays ours. */
  private send(bytes: Buffer, { isLast }: { readonly isLast: boolean }): void {
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
    if (this.life.signal.aborted) throw this.misuse();
    if (this.failure !== undefined) throw this.failure;
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
