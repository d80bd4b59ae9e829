// SPDX-License-Identifier: Apache-2.0
import { listProc, readProc } from '../linux/proc.js';

/** One process of the application, as /proc shows it. */
export interface TreeProcess {
  readonly pid: number;
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  readonly state: string;
  readonly name: string;
  readonly tids: readonly number[];
  /** Field 52 of stat, as wait(2) encodes it; zero without the right to read it. */
  readonly exitCode: number;
}

/** The tree below `rootPid`, root first. Processes that vanish while it is read are left out. */
export function readTree(rootPid: number): TreeProcess[] {
  const found: TreeProcess[] = [];
  const queue = [rootPid];
  for (let pid = queue.shift(); pid !== undefined; pid = queue.shift()) {
    const one = readProcess(pid);
    if (one === undefined) continue;
    found.push(one);
    for (const tid of one.tids) queue.push(...childrenOf(pid, tid));
  }
  return found;
}

/** Children of this process, whichever of its threads made them. */
export function ownChildren(): number[] {
  return listProc('/proc/self/task').flatMap((tid) => childrenOf(process.pid, tid));
}

export function readProcess(pid: number): TreeProcess | undefined {
  const stat = readProc(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  const nameEnd = stat.lastIndexOf(')');
  const name = stat.slice(stat.indexOf('(') + 1, nameEnd);
  const fields = stat
    .slice(nameEnd + 2)
    .trim()
    .split(' ');
  return {
    pid,
    name,
    state: fields[0] ?? '?',
    ppid: Number(fields[1]),
    pgid: Number(fields[2]),
    sid: Number(fields[3]),
    exitCode: Number(fields[49] ?? 0),
    tids: listProc(`/proc/${pid}/task`),
  };
}

/**
 * CPU time in milliseconds, in steps of ten, that a process has used on this machine, and those of its children that it has waited for. A restored
 * one has used what its restore took.
 */
export function cpuTimeMs(pid: number): number {
  const stat = readProc(`/proc/${pid}/stat`) ?? '';
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((total, ticks) => total + Number(ticks) * MS_PER_TICK, 0);
}

/** The kernel's unit in /proc, the same on every Linux on x64. */
const MS_PER_TICK = 10;

/** Resident memory in bytes, shared pages counted in each process. */
export function residentBytes(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readProc(`/proc/${pid}/status`) ?? '');
  return match === null ? 0 : Number(match[1]) * 1024;
}

function childrenOf(pid: number, tid: number): number[] {
  const text = readProc(`/proc/${pid}/task/${tid}/children`) ?? '';
  return text
    .split(' ')
    .filter((word) => word !== '')
    .map(Number);
}
