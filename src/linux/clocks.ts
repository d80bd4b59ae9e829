// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { check, libc } from './libc.js';

const clockGettime = libc.func('int clock_gettime(int id, void *ts)') as (id: number, ts: Uint8Array) => number;

const CLOCK_MONOTONIC = 1;
const CLOCK_BOOTTIME = 7;

/** Clocks in nanoseconds, as this process's time namespace shows them. */
export interface Clocks {
  readonly monotonicNs: bigint;
  readonly boottimeNs: bigint;
}

export function readClocks(): Clocks {
  return { monotonicNs: readClock(CLOCK_MONOTONIC), boottimeNs: readClock(CLOCK_BOOTTIME) };
}

/** Offsets of a process's time namespace against the machine's own clocks; zero where there are no such namespaces. */
export function readClockOffsets(pid: number | 'self' = 'self'): Clocks {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/timens_offsets`, 'utf8');
  } catch {
    // A kernel without time namespaces has no offsets, nor has a process that has gone.
    return { monotonicNs: 0n, boottimeNs: 0n };
  }
  const offsetOf = (name: string): bigint => {
    const match = new RegExp(`^${name}\\s+(-?\\d+)\\s+(\\d+)`, 'm').exec(text);
    return match === null ? 0n : BigInt(match[1] ?? '0') * 1_000_000_000n + BigInt(match[2] ?? '0');
  };
  return { monotonicNs: offsetOf('monotonic'), boottimeNs: offsetOf('boottime') };
}

function readClock(id: number): bigint {
  const ts = Buffer.alloc(16);
  check(clockGettime(id, ts), 'clock_gettime');
  return ts.readBigInt64LE(0) * 1_000_000_000n + ts.readBigInt64LE(8);
}
