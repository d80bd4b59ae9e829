// SPDX-License-Identifier: Apache-2.0
// Memory that is touched before a run and free when the run needs it.
import { libc } from '../src/linux/libc.js';

/** Memory that is touched and kept. Call `release` at the end in any case. */
export interface Warmth {
  /** Free it as soon as the run is about to need it. */
  releaseWhen(isNeeded: () => boolean): void;
  release(): void;
}

/**
 * Touch as much memory as a run will need. A virtual machine gives freed pages back to its host within seconds, and getting
 * them again is slower than everything that is measured here: were they freed before the command is started, they would be
 * there or not when it comes to need them, by chance.
 */
export function keepWarm(bytes: number): Warmth {
  const address = mmap(0n, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address === MAP_FAILED) throw new Error(`cannot have ${bytes} bytes of memory`);
  // Large pages are freed at once; small ones would take a tenth of a second per gigabyte, while the run is on.
  madvise(address, bytes, MADV_HUGEPAGE);
  madvise(address, bytes, MADV_POPULATE_WRITE);
  let kept = true;
  let timer: NodeJS.Timeout | undefined;
  const release = (): void => {
    clearInterval(timer);
    if (kept) munmap(address, bytes);
    kept = false;
  };
  return {
    release,
    releaseWhen(isNeeded) {
      timer = setInterval(() => {
        if (isNeeded()) release();
      }, POLL_MS);
    },
  };
}

const POLL_MS = 2;

const mmap = libc.func('uint64 mmap(uint64 at, size_t length, int rights, int flags, int fd, int64 offset)') as (
  at: bigint,
  length: number,
  rights: number,
  flags: number,
  fd: number,
  offset: number,
) => number | bigint;
const madvise = libc.func('int madvise(uint64 at, size_t length, int advice)') as (
  at: number | bigint,
  length: number,
  advice: number,
) => number;
const munmap = libc.func('int munmap(uint64 at, size_t length)') as (at: number | bigint, length: number) => number;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const MADV_HUGEPAGE = 14;
const MADV_POPULATE_WRITE = 23;
