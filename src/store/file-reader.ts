// SPDX-License-Identifier: Apache-2.0
import { open, type FileHandle } from 'node:fs/promises';
import { FastFreezeError } from '../base/errors.js';
import { readAll } from './file-io.js';
import { notFound, storeError, truncated } from './store-error.js';
import type { StoreReader } from './store.js';

export async function openFileReader(path: string): Promise<StoreReader> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, 'r');
    const found = await handle.stat();
    // Something else under the name of an object (a directory, a pipe) is no object.
    if (!found.isFile()) throw notFound(path);
    return new FileReader(handle, path, found.size);
  } catch (error) {
    await handle?.close();
    throw storeError(error, 'read', path);
  }
}

class FileReader implements StoreReader {
  private readonly fd: number;
  private reading = 0;
  private closed = false;

  constructor(
    private readonly handle: FileHandle,
    private readonly path: string,
    readonly sizeBytes: number,
  ) {
    this.fd = handle.fd;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    if (this.closed) throw new FastFreezeError({ code: 'aborted', op: 'read', subject: this.path, reason: 'closed' });
    if (into.length === 0) return;
    this.reading++;
    try {
      const got = await readAll(this.fd, into, offset);
      if (got < into.length) throw truncated(this.path, offset + into.length, offset + got);
    } catch (error) {
      throw storeError(error, 'read', this.path);
    } finally {
      this.reading--;
      this.closeWhenIdle();
    }
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.closeWhenIdle();
  }

  /** A descriptor closed under a running read could by then be another file's. */
  private closeWhenIdle(): void {
    if (this.closed && this.reading === 0) this.handle.close().catch(() => undefined);
  }
}
