// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';
import type { StoreWriter } from '../store.js';
import type { ObjectClient, Upload, UploadedPart } from './object-client.js';
import type { PartPool } from './part-pool.js';
import { type Pieces, sizeOf } from '../pieces.js';

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
  /** Of the part that is being filled. */
  private segments: Buffer[] = [];
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

  constructor(private readonly options: ObjectWriterOptions) {}

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
    const { client, name, parts } = this.options;
    const signal = this.life.signal;
    if (this.upload === undefined) {
      const { segments, bytes } = this.takeFilled();
      this.mayBeThere = true;
      // A copy: who puts small objects may go on reading them for a moment after it was called off.
      await parts.carry(segments, () => client.put(name, Buffer.concat(bytes), { signal, ifAbsent: false }));
    } else {
      const upload = await this.upload;
      await this.waitForTurn();
      this.send({ isLast: true });
      await Promise.allSettled(this.underWay);
      this.throwIfFailed();
      this.arrived.sort((one, other) => one.number - other.number);
      this.mayBeThere = true;
      await client.completeUpload(upload, this.arrived, { signal });
    }
    // Called off while the last request was on its way: `abort` removes what has come of it.
    this.throwIfFailed();
    this.state = 'finished';
  }

  private async clear(): Promise<void> {
    const { client, name } = this.options;
    this.life.abort(this.misuse());
    await this.turn;
    await this.finishing?.catch(() => undefined);
    await Promise.allSettled(this.underWay);
    this.options.parts.give(this.takeFilled().segments);
    const upload = await this.upload?.catch(() => undefined);
    const signal = AbortSignal.timeout(ABORT_TIMEOUT_MS);
    // What stays is removed by the next sweep; there is nobody left to tell.
    if (upload !== undefined) await client.abortUpload(upload, { signal }).catch(() => undefined);
    if (this.mayBeThere) await client.remove(name, { signal }).catch(() => undefined);
  }

  private async copy(parts: readonly Uint8Array[]): Promise<void> {
    const { partBytes } = this.options.parts;
    for (const part of parts) {
      for (let done = 0; done < part.length;) {
        this.throwIfFailed();
        // Only now is it known that this part is not the last.
        if (this.filled === partBytes) await this.sendFull();
        const room = await this.room();
        const taken = Math.min(part.length - done, room.length);
        room.set(part.subarray(done, done + taken));
        this.filled += taken;
        done += taken;
      }
    }
  }

  /** Where the next bytes go; not empty. */
  private async room(): Promise<Buffer> {
    const { parts } = this.options;
    const at = this.filled % parts.segmentBytes;
    if (at === 0) this.segments.push(await parts.take(this.life.signal));
    const last = this.segments.at(-1);
    if (last === undefined) throw this.misuse();
    return last.subarray(at);
  }

  private async sendFull(): Promise<void> {
    const { client, name } = this.options;
    this.upload ??= client.beginUpload(name, { signal: this.life.signal });
    await this.upload;
    await this.waitForTurn();
    this.send({ isLast: false });
  }

  /** The part that was being filled, which nobody fills any more. */
  private takeFilled(): { readonly segments: readonly Buffer[]; readonly bytes: Pieces } {
    const { segments, filled } = this;
    const { segmentBytes } = this.options.parts;
    this.segments = [];
    this.filled = 0;
    const bytes = segments.map((segment, i) => segment.subarray(0, Math.min(segmentBytes, filled - i * segmentBytes)));
    return { segments, bytes };
  }

  /** Until one more part may be on its way. */
  private async waitForTurn(): Promise<void> {
    while (this.underWay.size >= this.options.client.maxParallelParts) await Promise.race(this.underWay);
    this.throwIfFailed();
  }

  /** Start the part that was being filled on its way; its memory is its own until it has arrived. */
  private send({ isLast }: { readonly isLast: boolean }): void {
    const { segments, bytes } = this.takeFilled();
    const part = { number: ++this.sentParts, offset: this.sentBytes, isLast };
    this.sentBytes += sizeOf(bytes);
    const sent = this.options.parts
      .carry(segments, () => this.deliver(part, bytes))
      .finally(() => this.underWay.delete(sent));
    this.underWay.add(sent);
  }

  private async deliver(
    part: { readonly number: number; readonly offset: number; readonly isLast: boolean },
    bytes: Pieces,
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
