// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { cpus, freemem, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { libc } from '../src/linux/libc.js';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly node: string;
  readonly criu: string;
  readonly commit: string;
  readonly identity: 'root' | 'user';
}

export function describeMachine(criuVersion: string, privileged: boolean): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.version,
    criu: criuVersion,
    commit: commit(),
    identity: privileged ? 'root' : 'user',
  };
}

export function availableBytes(): number {
  const found = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
  return found === undefined ? freemem() : Number(found) * 1024;
}

/** Jiffies that all CPUs together were not idle: work of anybody, the kernel's and the hypervisor's included. */
export function busySeconds(): number {
  const words = readFileSync('/proc/stat', 'utf8').split('\n')[0]?.split(/\s+/).slice(1).map(Number) ?? [];
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = words;
  return (user + nice + system + irq + softirq + steal) / 100;
}

/** Wait until the machine has nothing else to do, at most so long. Resolves to whether it became quiet. */
export async function quiet(timeoutMs: number): Promise<boolean> {
  const windowMs = 400;
  for (const endMs = Date.now() + timeoutMs; ;) {
    const before = busySeconds();
    await sleep(windowMs);
    const share = (busySeconds() - before) / ((windowMs / 1000) * cpus().length);
    if (share < MAX_FOREIGN_SHARE) return true;
    if (Date.now() > endMs) return false;
  }
}

/** A run during which others took more than this share of the CPUs is disturbed. */
export const MAX_FOREIGN_SHARE = 0.08;

/**
 * Touch as much memory as a run will need. A virtual machine gives freed pages back to its host, and getting them
 * again is slower than everything that is measured here.
 */
export function warm(directory: string, bytes: number): void {
  const path = join(directory, 'warm');
  const block = Buffer.alloc(1 << 20, 1);
  const fd = openSync(path, 'w');
  try {
    for (let at = 0; at < bytes; at += block.length) writeSync(fd, block);
  } finally {
    closeSync(fd);
    rmSync(path);
  }
}

const getrusage = libc.func('int getrusage(int who, void *usage)') as (who: number, usage: Uint8Array) => number;
const RUSAGE_CHILDREN = -1;

/** CPU seconds of the children that have ended, and of theirs. */
export function childrenCpuSeconds(): number {
  const usage = Buffer.alloc(256);
  getrusage(RUSAGE_CHILDREN, usage);
  const time = (at: number): number => Number(usage.readBigInt64LE(at)) + Number(usage.readBigInt64LE(at + 8)) / 1e6;
  return time(0) + time(16);
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8', timeout: 5_000 }).trim();
  } catch {
    // Not a checkout.
    return 'unknown';
  }
}
