// SPDX-License-Identifier: Apache-2.0
// What /proc says about the processes that are measured.
import { readFileSync } from 'node:fs';

export interface ProcessFacts {
  readonly pid: number;
  /** PID in the innermost namespace. */
  readonly innerPid: number;
  readonly name: string;
  readonly commandLine: string;
}

/** Ticks of the clock that /proc/PID/stat counts in: 100 a second on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    // The process has gone.
    return undefined;
  }
}

export function inspect(pid: number): ProcessFacts | undefined {
  const status = readText(`/proc/${pid}/status`);
  if (status === undefined) return undefined;
  const inner = /^NSpid:.*?(\d+)$/m.exec(status)?.[1] ?? String(pid);
  const name = /^Name:\s*(.*)$/m.exec(status)?.[1] ?? '';
  const commandLine = (readText(`/proc/${pid}/cmdline`) ?? '').replaceAll('\0', ' ').trim();
  return { pid, innerPid: Number(inner), name, commandLine };
}

/** What a process is of a job: `supervisor`, `launcher`, `criu`, or its own name. */
export function roleOf({ commandLine, name }: ProcessFacts): string {
  if (commandLine.includes('supervisor-main.js')) return 'supervisor';
  if (commandLine.includes('bin/main.js')) return 'launcher';
  if (/\bcriu (--\S+ )*(dump|restore)/.test(commandLine)) return 'criu';
  return name;
}

export function childrenOf(pid: number): number[] {
  const tasks = readText(`/proc/${pid}/task/${pid}/children`);
  // Any thread may have forked; Node forks from its main thread, CRIU has one.
  return (tasks ?? '')
    .split(' ')
    .filter((word) => word !== '')
    .map(Number);
}

/** `root` and everything below it, root first; what `isForeign` says yes to is left out with all below it. */
export function treeOf(root: number, isForeign: (pid: number) => boolean = () => false): number[] {
  const found: number[] = [];
  const queue = [root];
  for (let pid = queue.shift(); pid !== undefined; pid = queue.shift()) {
    if (isForeign(pid)) continue;
    found.push(pid);
    queue.push(...childrenOf(pid));
  }
  return found;
}

/** CPU seconds of a process and of its children that have ended. */
export function cpuSeconds(pid: number): number {
  const fields = statFields(pid);
  // utime, stime, cutime, cstime are fields 14 to 17 of stat; ours begin with the third.
  return [11, 12, 13, 14].reduce((sum, i) => sum + Number(fields[i] ?? 0), 0) / TICKS_PER_SECOND;
}

/** CPU seconds of a process alone. */
export function ownCpuSeconds(pid: number): number {
  const fields = statFields(pid);
  return [11, 12].reduce((sum, i) => sum + Number(fields[i] ?? 0), 0) / TICKS_PER_SECOND;
}

/** Whether a tracer has stopped it, as CRIU does to what it dumps. */
export function isStopped(pid: number): boolean {
  return statFields(pid)[0] === 't';
}

function statFields(pid: number): string[] {
  const stat = readText(`/proc/${pid}/stat`) ?? '';
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** Seconds since the epoch at which a process was started, to a hundredth. */
export function startedAt(pid: number): number | undefined {
  const ticks = Number(statFields(pid)[19]);
  if (!Number.isFinite(ticks)) return undefined;
  const uptime = Number(readText('/proc/uptime')?.split(' ')[0]);
  return Date.now() / 1000 - uptime + ticks / TICKS_PER_SECOND;
}

/** Proportional set size in bytes; 0 when the process has gone. */
export function pssBytes(pid: number): number {
  const rollup = readText(`/proc/${pid}/smaps_rollup`);
  return Number(/^Pss:\s+(\d+) kB/m.exec(rollup ?? '')?.[1] ?? 0) * 1024;
}
