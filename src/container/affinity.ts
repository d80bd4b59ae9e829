// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { libc } from '../linux/libc.js';
import type { TreeProcess } from './tree.js';

const schedSetaffinity = libc.func('int sched_setaffinity(int tid, size_t size, const void *mask)') as (
  tid: number,
  size: number,
  mask: Uint8Array,
) => number;

/** A thread that may run on some CPUs only, as the kernel lists them: `0-3,8`. */
export interface ThreadAffinity {
  readonly tid: number;
  readonly cpus: string;
}

/** Threads whose CPU affinity differs from ours, which is what a fresh container gives. CRIU does not keep it. */
export function readAffinity(tree: readonly TreeProcess[]): ThreadAffinity[] {
  const usual = allowedCpus('/proc/self/status');
  const found: ThreadAffinity[] = [];
  for (const process of tree) {
    for (const tid of process.tids) {
      const cpus = allowedCpus(`/proc/${process.pid}/task/${tid}/status`);
      if (cpus !== undefined && cpus !== usual) found.push({ tid, cpus });
    }
  }
  return found;
}

/** Give the threads their CPUs back. Returns those for which this machine has none of them. */
export function restoreAffinity(affinity: readonly ThreadAffinity[]): ThreadAffinity[] {
  return affinity.filter(({ tid, cpus }) => {
    const mask = Buffer.alloc(1024);
    for (const cpu of parseCpuList(cpus)) {
      const byte = cpu >> 3;
      if (byte < mask.length) mask[byte] = (mask[byte] ?? 0) | (1 << (cpu & 7));
    }
    return schedSetaffinity(tid, mask.length, mask) < 0;
  });
}

function parseCpuList(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part.trim());
    if (match === null) return [];
    const first = Number(match[1]);
    const last = Math.min(Number(match[2] ?? match[1]), 8191);
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
  });
}

function allowedCpus(path: string): string | undefined {
  try {
    return /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync(path, 'utf8'))?.[1];
  } catch {
    // The thread has gone.
    return undefined;
  }
}
