// SPDX-License-Identifier: Apache-2.0
import { type BigIntStats, readFileSync, readdirSync, readlinkSync, statSync } from 'node:fs';

/** A file of /proc; undefined when its process or descriptor has gone, or we may not look. */
export function readProc(path: string): string | undefined {
  return unlessGone(() => readFileSync(path, 'utf8'));
}

/** What a link of /proc points to; undefined likewise. */
export function readProcLink(path: string): string | undefined {
  return unlessGone(() => readlinkSync(path));
}

/** What stands behind a path, a descriptor's in /proc or any other; undefined likewise. */
export function statSeen(path: string): BigIntStats | undefined {
  return unlessGone(() => statSync(path, { bigint: true }));
}

/** The numbers that a directory of /proc lists: PIDs, threads, descriptors. None likewise, nor for a zombie. */
export function listProc(path: string): number[] {
  return unlessGone(() => readdirSync(path).map(Number)) ?? [];
}

/** Whoever looks at a process races with its end: that it has gone is an answer, no error. */
function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
