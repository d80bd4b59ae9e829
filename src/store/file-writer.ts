// SPDX-License-Identifier: Apache-2.0
import { constants } from 'node:fs';
import { open, rename, unlink, type FileHandle } from 'node:fs/promises';
import { FastFreezeError } from '../base/errors.js';
import { syncDirectory, writeAll } from './file-io.js';
import { sizeOf } from './pieces.js';
import { storeError } from './store-error.js';
import type { StoreWriter } from './store.js';
import { Writeback } from './writeback.js';

export interface FileWriterOptions {
  readonly directory: string;
  readonly path: string;
  readonly temporary: string;
}

/** Writes to a temporary name beside the final one, so that the last step is a rename within one directory. */
export async function createFileWriter(options: FileWriterOptions): Promise<StoreWriter> {
  try {
    const handle = await open(options.temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    return new FileWriter(handle, options);
  } catch (error) {
    throw storeError(error, 'write', options.path);
  }
}

class FileWriter implements StoreWriter {
  private position = 0;
  private readonly inFlight = new Set<Promise<void>>();
  private failure: FastFreezeError | undefined;
  private readonly writeback: Writeback;
  private state: 'open' | 'finished' | 'aborted' = 'open';
  private finishing: Promise<void> | undefined;

  constructor(
    private readonly handle: FileHandle,
    private readonly options: FileWriterOptions,
  ) {
    this.writeback = new Writeback(handle.fd);
  }

  append(parts: readonly Uint8Array[]): Promise<void> {
    if (this.state !== 'open') return Promise.reject(this.misuse());
    if (this.failure !== undefined) return Promise.reject(this.failure);
    const at = this.position;
    this.position += sizeOf(parts);
    const done = writeAll(this.handle.fd, parts, at)
      .then(
        () => {
          // Appends end in any order; what was begun before this one may still lack a few bytes, which fsync then adds.
          if (this.state === 'open') this.writeback.advance(this.position);
        },
        (error: unknown) => {
          throw this.fail(error);
        },
      )
      .finally(() => this.inFlight.delete(done));
    this.inFlight.add(done);
    return done;
  }

  finish(): Promise<void> {
    if (this.state !== 'open' || this.finishing !== undefined) return Promise.reject(this.misuse());
    this.finishing = this.show();
    return this.finishing;
  }

  private async show(): Promise<void> {
    await Promise.allSettled(this.inFlight);
    if (this.failure !== undefined) throw this.failure;
    try {
      await this.handle.sync();
      await this.handle.close();
      await rename(this.options.temporary, this.options.path);
      await syncDirectory(this.options.directory);
      this.state = 'finished';
    } catch (error) {
      throw this.fail(error);
    }
  }

  async abort(): Promise<void> {
    await Promise.allSettled([...this.inFlight, this.finishing]);
    if (this.state !== 'open') return;
    this.state = 'aborted';
    // Nothing is left to tell anybody: a temporary file that stays is removed by the next sweep.
    await Promise.allSettled([this.handle.close(), unlink(this.options.temporary)]);
  }

  private fail(error: unknown): FastFreezeError {
    this.failure ??= storeError(error, 'write', this.options.path);
    return this.failure;
  }

  private misuse(): FastFreezeError {
    return new FastFreezeError({
      code: 'internal',
      op: 'write',
      subject: this.options.path,
      reason: `the writer is already ${this.state === 'open' ? 'finishing' : this.state}`,
    });
  }
}
