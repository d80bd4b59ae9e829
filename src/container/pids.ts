// SPDX-License-Identifier: Apache-2.0
import { readFileSync, writeFileSync } from 'node:fs';
import { FastFreezeError, hasErrno } from '../base/errors.js';
import { useThreads } from '../linux/threads.js';

/** PID of the application's root process in its container. */
export const APP_PID = 1000;

/** The kernel hands out no PID below this again once its counter has wrapped; ours from the start stay below it. */
export const RESERVED_PIDS = 300;

/** Free PIDs that CRIU and our other helpers find in a row after the place we choose. */
const HEADROOM = 64;

/** Make `pid` + 1 the next PID of this PID namespace. Throws `host` where that is not permitted. */
export function setLastPid(pid: number): void {
  setOrUseUp(pid, () => useUpPids((last) => pid - last));
}

/**
 * Let none of the PIDs that are given out next be one of an image's: `taken`, as for `lastPidBeforeRestore`. Throws `host`
 * where that is not permitted.
 */
export function makeRoomForPids(taken: readonly number[]): void {
  const pidMax = readPidMax();
  setOrUseUp(lastPidBeforeRestore(taken, pidMax), () => useUpPids((last) => pidsToUseUp(taken, last, pidMax)));
}

/** `useUp` is for where the counter cannot be set; it returns whether that served as well. */
function setOrUseUp(pid: number, useUp: () => boolean): void {
  const path = '/proc/sys/kernel/ns_last_pid';
  try {
    writeFileSync(path, String(pid));
  } catch (error) {
    // Container engines make /proc/sys read-only. Without a container of our own that is the one we have.
    if (hasErrno(error, 'EROFS') && useUp()) return;
    throw new FastFreezeError({
      code: 'host',
      op: 'choose PIDs through',
      subject: path,
      reason: hasErrno(error, 'ENOENT')
        ? 'this kernel has no checkpoint/restore support'
        : 'writing it is not permitted',
      hint: 'run outside a container, or in one with CAP_CHECKPOINT_RESTORE and a writable /proc/sys (systempaths=unconfined)',
      cause: error,
    });
  }
}

/** Seconds, on a slow machine. */
const MOST_TO_USE_UP = 100_000;

/**
 * Use as many numbers up as `count` says for the one that was given out last; false where it says less than none, or too
 * many. What others start meanwhile may take a few more: who needs the very next one has to look what it got.
 */
function useUpPids(count: (last: number) => number): boolean {
  let left = count(readLastPid());
  if (left < 0) return false;
  for (let used = 0; left > 0; left = count(readLastPid())) {
    used += left;
    if (used > MOST_TO_USE_UP) return false;
    // Threads get their numbers from the same counter, and are the cheapest that do.
    useThreads(left);
  }
  return true;
}

/**
 * How many numbers to use up before a restore, where `last` was given out last: to the place of `lastPidBeforeRestore`,
 * or, where the counter is past it or far from it, to the next that has room. The image's own PIDs need no counter.
 */
export function pidsToUseUp(taken: readonly number[], last: number, pidMax: number): number {
  const distance = lastPidBeforeRestore(taken, pidMax) - last;
  if (distance >= 0 && distance <= MOST_TO_USE_UP) return distance;
  const used = new Set(taken);
  // Below the application's are our own, here and on the machine where it continues next.
  let before = Math.max(0, APP_PID - 1 - last);
  let pid = last + before;
  // There is room somewhere, or the place above would not have been found: at most once around.
  for (let free = 0, steps = before; free < HEADROOM; steps += 1) {
    pid = pid + 1 < pidMax ? pid + 1 : RESERVED_PIDS;
    free = used.has(pid) ? 0 : free + 1;
    if (free === 0) before = steps + 1;
  }
  return before;
}

/** The PID that was given out last in the PID namespace of /proc. */
function readLastPid(): number {
  return Number(readFileSync('/proc/loadavg', 'utf8').trim().split(' ').at(-1));
}

/**
 * The value for ns_last_pid before a restore. `taken` are the PIDs, TIDs, process groups and sessions of the image:
 * what starts next (CRIU, then children of the restored application) must find none of them in its way.
 */
export function lastPidBeforeRestore(taken: Iterable<number>, pidMax: number): number {
  const sorted = [...new Set(taken)].filter((pid) => pid >= RESERVED_PIDS).sort((a, b) => a - b);
  const highest = Math.max(APP_PID - 1, sorted.at(-1) ?? 0);
  if (highest + HEADROOM < pidMax) return highest;
  // The image reaches up to the wrap: find a gap below instead.
  let previous = RESERVED_PIDS - 1;
  for (const pid of [...sorted, pidMax]) {
    if (pid - previous > HEADROOM) return previous;
    previous = pid;
  }
  throw new FastFreezeError({
    code: 'host',
    op: 'find free PIDs for the restore',
    reason: `the image uses nearly all of the ${pidMax} PIDs`,
    hint: 'raise kernel.pid_max',
  });
}

export function readPidMax(): number {
  return Number(readFileSync('/proc/sys/kernel/pid_max', 'utf8').trim());
}

/** Many numbers as text: `1000-1004,1200`. */
export function formatRanges(numbers: Iterable<number>): string {
  const sorted = [...new Set(numbers)].sort((a, b) => a - b);
  const parts: string[] = [];
  for (let i = 0; i < sorted.length;) {
    const start = sorted[i] ?? 0;
    let end = start;
    while (i < sorted.length && (sorted[i] ?? 0) <= end + 1) end = sorted[i++] ?? end;
    parts.push(start === end ? String(start) : `${start}-${end}`);
  }
  return parts.join(',');
}

/** No kernel hands out a higher PID. */
const PID_LIMIT = 1 << 22;

/** The numbers that `formatRanges` wrote; undefined when the text is not of that form. */
export function parseRanges(text: string): number[] | undefined {
  if (text === '') return [];
  const numbers: number[] = [];
  let previous = -1;
  for (const part of text.split(',')) {
    const match = /^(\d{1,7})(?:-(\d{1,7}))?$/.exec(part);
    if (match === null) return undefined;
    const start = Number(match[1]);
    const end = Number(match[2] ?? match[1]);
    // In order and below the kernel's own limit, or a few bytes of a damaged image could fill all memory.
    if (start <= previous || end < start || end > PID_LIMIT) return undefined;
    previous = end;
    for (let pid = start; pid <= end; pid++) numbers.push(pid);
  }
  return numbers;
}
