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
  const group = await groupRoom(await textIn('/proc/self/cgroup'));
  const freeBytes = Math.min(machine, group ?? Infinity);
  const where = group !== undefined && group < machine ? " within this control group's limit" : '';
  const detail = `${Math.floor(freeBytes / MIB)} MB available${where}; freezing needs about 100 MB beside the job`;
  if (freeBytes >= NEEDED_BYTES) return ok('memory', detail);
  return warn('memory', detail, "give the job's limit 100 MB more than the job itself needs");
}

export function parseMemAvailable(meminfo: string): number {
  return Number(/^MemAvailable:\s*(\d+) kB/m.exec(meminfo)?.[1] ?? Infinity) * 1024;
}

/**
 * What the limits of our control groups leave: of our own and of all above it that can be seen. Undefined where there is no
 * limit, or none that can be seen.
 */
export async function groupRoom(groups: string, mount = '/sys/fs/cgroup'): Promise<number | undefined> {
  const unified = /^0::(.*)$/m.exec(groups)?.[1] ?? '/';
  const legacy = /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/m.exec(groups)?.[1] ?? '/';
  const rooms = await Promise.all([
    ...withAncestors(unified).map(async (path) => await roomIn(join(mount, path), UNIFIED)),
    ...withAncestors(legacy).map(async (path) => await roomIn(join(mount, 'memory', path), LEGACY)),
  ]);
  const known = rooms.filter((room) => room !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

interface Names {
  readonly limit: string;
  readonly used: string;
  /** Of the group and all below it, as what is used. */
  readonly reclaimable: RegExp;
}

const UNIFIED: Names = { limit: 'memory.max', used: 'memory.current', reclaimable: /^inactive_file (\d+)$/m };
const LEGACY: Names = {
  limit: 'memory.limit_in_bytes',
  used: 'memory.usage_in_bytes',
  reclaimable: /^total_inactive_file (\d+)$/m,
};

/** In a container the path may be the machine's while only what is below it is mounted: then the last one is our own. */
function withAncestors(path: string): string[] {
  const names = path.split('/').filter((name) => name !== '');
  // A group outside of what this namespace shows, so that nothing there is above us.
  if (names.includes('..')) return [];
  return [...names.map((_, index) => names.slice(0, names.length - index).join('/')), ''];
}

/** What is used has file pages in it, which the kernel drops before it lets anybody run out of memory. */
async function roomIn(folder: string, names: Names): Promise<number | undefined> {
  const limitBytes = await numberIn(join(folder, names.limit));
  const usedBytes = await numberIn(join(folder, names.used));
  if (limitBytes === undefined || usedBytes === undefined) return undefined;
  const statistics = await textIn(join(folder, 'memory.stat'));
  const reclaimableBytes = Number(names.reclaimable.exec(statistics)?.[1] ?? 0);
  return Math.max(0, limitBytes - Math.max(0, usedBytes - reclaimableBytes));
}

async function numberIn(path: string): Promise<number | undefined> {
  const text = (await textIn(path)).trim();
  // `max` is no limit.
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

/** Empty where there is no such file: not every group has all of them. */
async function textIn(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch(() => '');
}
