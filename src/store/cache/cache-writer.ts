// SPDX-License-Identifier: Apache-2.0
import { link, open, unlink, type FileHandle } from 'node:fs/promises';
import { FastFreezeError } from '../../base/errors.js';
import { writeAll } from '../file-io.js';
import { sizeOf } from '../pieces.js';
import { storeError } from '../store-error.js';
import type { StoreWriter } from '../store.js';
import type { AgentPool } from './agent-pool.js';
import { type CacheClient, TRANSFER_TIMEOUT_MS } from './cache-client.js';
import { writtenKey } from './keys.js';

export interface CacheWriterOptions {
  readonly client: CacheClient;
  readonly pool: AgentPool;
  readonly prefix: string;
  readonly name: string;
  /** Told of every byte before it is taken; throws when there are too many. */
  readonly count: (bytes: number) => void;
  /** Told the key under which the object is there. */
  readonly finished: (key: string) => void;
}

/** Puts an object together in a file, and makes an entry of it when it is complete. */
export async function createCacheWriter(options: CacheWriterOptions): Promise<StoreWriter> {
  const path = await options.pool.enter();
  try {
    return new CacheWriter(await open(path, 'wx', 0o600), path, options);
  } catch (error) {
    options.pool.leave();
    throw storeError(error, 'write', path);
  }
}

class CacheWriter implements StoreWriter {
  private readonly life = new AbortController();
  private readonly inFlight = new Set<Promise<void>>();
  private position = 0;
  private failure: FastFreezeError | undefined;
  private state: 'open' | 'finished' | 'aborted' = 'open';
  private finishing: Promise<void> | undefined;
  private clearing: Promise<void> | undefined;

  constructor(
    private readonly handle: FileHandle,
    private readonly path: string,
    private readonly options: CacheWriterOptions,
  ) {}

  append(parts: readonly Uint8Array[]): Promise<void> {
    if (this.state !== 'open' || this.finishing !== undefined) return Promise.reject(this.misuse());
    if (this.failure !== undefined) return Promise.reject(this.failure);
    try {
      this.options.count(sizeOf(parts));
    } catch (error) {
      return Promise.reject(this.fail(error));
    }
    const at = this.position;
    this.position += sizeOf(parts);
    const done = writeAll(this.handle.fd, parts, at)
      .catch((error: unknown) => {
        throw this.fail(error);
      })
      .finally(() => this.inFlight.delete(done));
    this.inFlight.add(done);
    return done;
  }

  finish(): Promise<void> {
    if (this.state !== 'open' || this.finishing !== undefined) return Promise.reject(this.misuse());
    this.finishing = this.show();
    return this.finishing;
  }

  async abort(): Promise<void> {
    this.life.abort();
    await Promise.allSettled([...this.inFlight, this.finishing]);
    if (this.state === 'open') this.state = 'aborted';
    await this.clear();
  }

  private async show(): Promise<void> {
    await Promise.allSettled(this.inFlight);
    if (this.failure !== undefined) throw this.failure;
    try {
      const key = await this.save();
      this.options.finished(key);
      this.state = 'finished';
      await this.clear();
    } catch (error) {
      throw this.fail(error);
    }
  }

  /** A key that was reserved by an attempt that failed is not free again soon: each attempt has its own. */
  private async save(): Promise<string> {
    const { client, prefix, name } = this.options;
    const { signal } = this.life;
    let attempt = 0;
    return await client.patiently(
      name,
      async () => {
        const key = writtenKey(prefix, name, this.position, ++attempt);
        const copy = `${this.path}-${attempt}`;
        await link(this.path, copy);
        try {
          const outcome = await client.save(key, copy, TRANSFER_TIMEOUT_MS, signal).catch(async (error: unknown) => {
            // Only the answer may have got lost.
            if (!signal.aborted && (await client.lookup(key)) === key) return 'saved' as const;
            throw error;
          });
          if (outcome === 'taken') throw taken(name, attempt < MAX_ATTEMPTS);
          if ((await client.lookup(key)) !== key) throw vanished(key);
          return key;
        } finally {
          await unlink(copy).catch(() => undefined);
        }
      },
      signal,
    );
  }

  private clear(): Promise<void> {
    this.clearing ??= Promise.allSettled([this.handle.close(), unlink(this.path)]).then(() =>
      this.options.pool.leave(),
    );
    return this.clearing;
  }

  private fail(error: unknown): FastFreezeError {
    this.failure ??= storeError(error, 'write', this.options.name);
    return this.failure;
  }

  private misuse(): FastFreezeError {
    const reason = `the writer is already ${this.state === 'open' ? 'finishing' : this.state}`;
    return new FastFreezeError({ code: 'internal', op: 'write', subject: this.options.name, reason });
  }
}

const MAX_ATTEMPTS = 5;

function taken(name: string, passing: boolean): FastFreezeError {
  const reason = 'its keys are taken: this object was written before';
  return new FastFreezeError({ code: 'store', op: 'write', subject: name, reason, passing });
}

/** The client has said that it is there; whoever commits must know. */
export function vanished(key: string): FastFreezeError {
  return new FastFreezeError({
    code: 'store',
    op: 'write',
    subject: `${key} in GitHub's cache`,
    reason: 'it was saved, and is not there',
    hint: "the repository's cache may be full; free room with 'gh cache delete', or use --image-url s3://...",
    passing: true,
  });
}
