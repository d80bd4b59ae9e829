// SPDX-License-Identifier: Apache-2.0
import { errorCode } from './until.js';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface ProcessInfo {
  readonly pid: number;
  readonly ppid: number;
  readonly state: string;
  readonly command: string;
}

/** undefined when the process is gone (or went while we looked). */
export function inspect(pid: number): ProcessInfo | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const rest = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0').join(' ').trim();
    const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
    return { pid, ppid: Number(rest[1]), state: rest[0] ?? '?', command: words === '' ? `(${name})` : words };
  } catch {
    return undefined;
  }
}

export function allPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** The identity of a namespace, as `uts:[4026532837]`; undefined for a process that is gone or dead. */
export function namespaceOf(pid: number, kind: 'uts' | 'pid' | 'mnt' | 'time' | 'user'): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/${kind}`);
  } catch {
    return undefined;
  }
}

/** Every live process in the given UTS namespace: nothing that a test starts can leave that of its place, whatever it execs or forgets. */
export function processesIn(uts: string): ProcessInfo[] {
  return allPids()
    .filter((pid) => namespaceOf(pid, 'uts') === uts)
    .map(inspect)
    .filter((info): info is ProcessInfo => info !== undefined);
}

/** Processes with `FF_TEST_ID=id` in their environment, wherever they live. */
export function processesWithId(id: string): ProcessInfo[] {
  return allPids()
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`FF_TEST_ID=${id}\0`);
      } catch {
        return false;
      }
    })
    .map(inspect)
    .filter((info): info is ProcessInfo => info !== undefined);
}

export function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
      .flatMap((tid) => readFileSync(`/proc/${pid}/task/${tid}/children`, 'latin1').trim().split(' '))
      .filter((text) => text !== '')
      .map(Number);
  } catch {
    return [];
  }
}

export function descendantsOf(pid: number): number[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendantsOf(child)]);
}

/** Sends a signal by PID; a process that is already gone is no error. */
export function signalPid(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (errorCode(error) !== 'ESRCH') throw error;
  }
}
