// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { addressOf, libc } from './libc.js';
import { nodeFile } from './node-command.js';

const madvise = libc.func('int madvise(uint64 address, size_t length, int advice)') as (
  address: bigint,
  length: bigint,
  advice: number,
) => number;

const MADV_DONTNEED = 4;
const PAGE_BYTES = 4096n;

/**
 * Unmap the pages of this process's executable. The start of Node.js touches 30 MB of it, most of which are not needed
 * again; those that are come back by a page fault each, from the page cache as long as the machine has the memory. Resident
 * and proportional sizes (RSS, PSS) shrink by that. Only mappings that cannot be written to and of which no page is a copy of
 * our own. Never fails: where it cannot be done, nothing is lost but memory.
 */
export function unmapIdleCode(): void {
  let smaps: string;
  try {
    smaps = readFileSync('/proc/self/smaps', 'latin1');
  } catch {
    // No memory or descriptor for it, or no such file here.
    return;
  }
  for (const { start, end } of cleanMappings(smaps, nodeFile())) madvise(start, end - start, MADV_DONTNEED);
}

/** For tests: the read-only mappings of a file of which every page is the file's. */
export function cleanMappings(smaps: string, path: string): { start: bigint; end: bigint }[] {
  const found: { start: bigint; end: bigint }[] = [];
  // The text is long, and most of it is of no interest: it is not split into lines.
  for (let at = smaps.indexOf(` ${path}\n`); at >= 0; at = smaps.indexOf(` ${path}\n`, at + 1)) {
    const head = smaps.slice(smaps.lastIndexOf('\n', at) + 1, at);
    const [, from, to, rights] = /^([0-9a-f]+)-([0-9a-f]+) (\S+) /u.exec(head) ?? [];
    const isClean = ['Anonymous', 'Swap'].every((field) => {
      const found = smaps.indexOf(`\n${field}:`, at);
      return found >= 0 && /^\n\w+:\s+0 kB\n/u.test(smaps.slice(found, found + 40));
    });
    if (from === undefined || to === undefined || !/^r-[-x]p$/u.test(rights ?? '') || !isClean) continue;
    found.push({ start: BigInt(`0x${from}`), end: BigInt(`0x${to}`) });
  }
  return found;
}

/** Give the memory behind a buffer back to the machine, for as long as nobody writes to it; what it held is lost. */
export function forgetPages(buffer: Uint8Array): void {
  const address = addressOf(buffer);
  const start = ((address + PAGE_BYTES - 1n) / PAGE_BYTES) * PAGE_BYTES;
  const end = ((address + BigInt(buffer.length)) / PAGE_BYTES) * PAGE_BYTES;
  if (end > start) madvise(start, end - start, MADV_DONTNEED);
}
