// SPDX-License-Identifier: Apache-2.0

/** Bytes that gather before the device is told to begin. */
const STEP_BYTES = 32 << 20;
const SYNC_FILE_RANGE_WRITE = 2;

/**
 * Has the kernel write a growing file out while it grows. Left alone it lets gigabytes gather, and the fsync at the
 * end, with the application frozen, waits for all of them. Best effort: fsync decides what is durable.
 */
export class Writeback {
  private started = 0;

  constructor(private readonly fd: number) {}

  /** All bytes before `written` have been written to the file. */
  advance(written: number): void {
    if (busy || written - this.started < STEP_BYTES) return;
    busy = true;
    const from = this.started;
    this.started = written;
    void syncFileRange(this.fd, from, written - from).finally(() => (busy = false));
  }
}

/** One call at a time for all files: it blocks while the device is behind, and must not take every thread of the pool. */
let busy = false;

type SyncFileRange = (fd: number, offset: number, length: number) => Promise<void>;
let loaded: Promise<SyncFileRange> | undefined;

async function syncFileRange(fd: number, offset: number, length: number): Promise<void> {
  // Loaded with the first large object: who only reads manifests needs no native code.
  loaded ??= load();
  await (
    await loaded
  )(fd, offset, length);
}

async function load(): Promise<SyncFileRange> {
  const { libc } = await import('../linux/libc.js');
  const call = libc.func('int sync_file_range(int fd, int64 offset, int64 length, uint flags)') as unknown as {
    async(fd: number, offset: number, length: number, flags: number, done: () => void): void;
  };
  return (fd, offset, length) =>
    new Promise((resolve) => call.async(fd, offset, length, SYNC_FILE_RANGE_WRITE, () => resolve()));
}
