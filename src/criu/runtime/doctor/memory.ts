// SPDX-License-Identifier: Apache-2.0
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Row } from './row.js';
import { ok, warn } from './row.js';

const MIB = 1024 * 1024;
/** All helper processes of one job together. */
const NEEDED_BYTES = 100 * MIB;

/** What is free for the helpers: of the machine, and of the control group that we are in. */
export async function examineMemory(): Promise<Row> {
  const machine = parseMemAvailable(await readFile('/proc/meminfo', 'utf8'));
  const group = await groupRoom();
  const freeBytes = Math.min(machine, group ?? Infinity);
  const where = group !== undefined && group < machine ? " within this control group's limit" : '';
  const detail = `${Math.floor(freeBytes / MIB)} MB available${where}; freezing needs about 100 MB beside the job`;
  if (freeBytes >= NEEDED_BYTES) return ok('memory', detail);
  return warn('memory', detail, "give the job's limit 100 MB more than the job itself needs");
}

export function parseMemAvailable(meminfo: string): number {
  return Number(/^MemAvailable:\s*(\d+) kB/m.exec(meminfo)?.[1] ?? Infinity) * 1024;
}

/** Undefined where there is no limit, or none that can be seen. */
async function groupRoom(): Promise<number | undefined> {
  const groups = await readFile('/proc/self/cgroup', 'utf8').catch(() => '');
  const unified = /^0::(.*)$/m.exec(groups)?.[1];
  const legacy = /^\d+:[^:]*\bmemory\b[^:]*:(.*)$/m.exec(groups)?.[1];
  const places = [
    { folder: join('/sys/fs/cgroup', unified ?? ''), limit: 'memory.max', used: 'memory.current' },
    {
      folder: join('/sys/fs/cgroup/memory', legacy ?? ''),
      limit: 'memory.limit_in_bytes',
      used: 'memory.usage_in_bytes',
    },
  ];
  for (const { folder, limit, used } of places) {
    const limitBytes = await numberIn(join(folder, limit));
    const usedBytes = await numberIn(join(folder, used));
    if (limitBytes !== undefined && usedBytes !== undefined) return limitBytes - usedBytes;
  }
  return undefined;
}

async function numberIn(path: string): Promise<number | undefined> {
  const value = Number((await readFile(path, 'utf8').catch(() => 'none')).trim());
  return Number.isFinite(value) ? value : undefined;
}
