// SPDX-License-Identifier: Apache-2.0
import type { Message } from './protobuf.js';

export interface MemorySize {
  /** Bytes of address space. */
  readonly mappedBytes: number;
  /** Bytes of pages that the image holds for it. */
  readonly savedBytes: number;
}

export type MemoryKind = 'private' | 'shared' | 'filePrivate' | 'fileShared' | 'other';

/**
 * Memory of one process by kind: anonymous private, anonymous shared (its pages are saved once for all processes and
 * not counted here), files mapped privately (saved pages are those that the process changed) and shared.
 */
export type ProcessMemory = Readonly<Record<MemoryKind, MemorySize>>;

export const MEMORY_KINDS: readonly MemoryKind[] = ['private', 'shared', 'filePrivate', 'fileShared', 'other'];

const PAGE_BYTES = 4096n;

// Bits of a mapping's status (CRIU's criu/include/image.h).
const VSYSCALL = 1 << 2;
const FILE_PRIVATE = 1 << 6;
const FILE_SHARED = 1 << 7;
const ANON_SHARED = 1 << 8;
const ANON_PRIVATE = 1 << 9;
const SYSV_IPC = 1 << 10;
/** Shared memory that CRIU knows by a memfd: as root it sees anonymous memory so. */
const MEMFD = 1 << 14;
const GUARD = 1 << 16;

// Bits of a page map's entry.
const PARENT = 1 << 0;
const PRESENT = 1 << 2;

interface Mapping {
  readonly start: bigint;
  readonly end: bigint;
  readonly kind: MemoryKind;
}

/** `pagemap` is what stands in `pagemap-PID.img`: a head, then entries. Without one, nothing is saved. */
export function readMemory(mm: Message, pagemap: readonly Message[]): ProcessMemory {
  const mappings: Mapping[] = [];
  for (const vma of mm.messages(14)) {
    const status = vma.count(7) ?? 0;
    // The kernel's page at the end of every address space, and marks of CRIU's that are no mappings.
    if ((status & (VSYSCALL | GUARD)) !== 0) continue;
    mappings.push({ start: vma.big(1) ?? 0n, end: vma.big(2) ?? 0n, kind: kindOf(status) });
  }
  mappings.sort((one, other) => (one.start < other.start ? -1 : 1));
  const sizes = new Map(MEMORY_KINDS.map((kind) => [kind, { mappedBytes: 0, savedBytes: 0 }]));
  const add = (kind: MemoryKind, field: keyof MemorySize, bytes: bigint): void => {
    const size = sizes.get(kind);
    if (size !== undefined && bytes > 0n) size[field] += Number(bytes);
  };
  for (const { start, end, kind } of mappings) add(kind, 'mappedBytes', end - start);
  for (const { start, end } of savedRanges(pagemap)) {
    for (let at = firstEndingAfter(mappings, start), from = start; from < end; at++) {
      const mapping = mappings[at];
      if (mapping === undefined || mapping.start >= end) {
        add('other', 'savedBytes', end - from);
        break;
      }
      if (mapping.start > from) add('other', 'savedBytes', mapping.start - from);
      const to = min(end, mapping.end);
      add(mapping.kind, 'savedBytes', to - max(from, mapping.start));
      from = max(from, to);
    }
  }
  return Object.fromEntries(sizes) as Record<MemoryKind, MemorySize>;
}

/** Bytes of pages that a page map says the image holds. */
export function savedBytesOf(pagemap: readonly Message[]): number {
  return savedRanges(pagemap).reduce((sum, { start, end }) => sum + Number(end - start), 0);
}

/** Of a page map, in its order, which is that of the pages in their file. */
export function savedRanges(pagemap: readonly Message[]): { start: bigint; end: bigint }[] {
  return pagemap.slice(1).flatMap((entry) => {
    const start = entry.big(1) ?? 0n;
    const pages = entry.big(5) ?? entry.big(2) ?? 0n;
    const flags = entry.count(4) ?? (entry.count(3) === 1 ? PARENT : PRESENT);
    return (flags & PRESENT) === 0 ? [] : [{ start, end: start + pages * PAGE_BYTES }];
  });
}

function kindOf(status: number): MemoryKind {
  if ((status & (ANON_SHARED | SYSV_IPC | MEMFD)) !== 0) return 'shared';
  if ((status & FILE_PRIVATE) !== 0) return 'filePrivate';
  if ((status & FILE_SHARED) !== 0) return 'fileShared';
  return (status & ANON_PRIVATE) === 0 ? 'other' : 'private';
}

function firstEndingAfter(mappings: readonly Mapping[], address: bigint): number {
  let low = 0;
  let high = mappings.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((mappings[middle]?.end ?? 0n) > address) high = middle;
    else low = middle + 1;
  }
  return low;
}

function min(one: bigint, other: bigint): bigint {
  return one < other ? one : other;
}

function max(one: bigint, other: bigint): bigint {
  return one > other ? one : other;
}
