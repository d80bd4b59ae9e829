// SPDX-License-Identifier: Apache-2.0
import { constants as osConstants } from 'node:os';
import { check, lastErrno, libc } from './libc.js';

const waitid = libc.func('int waitid(int idtype, uint id, void *info, int options)') as (
  idtype: number,
  id: number,
  info: Uint8Array,
  options: number,
) => number;
const prctl = libc.func('int prctl(int option, uint64 a, uint64 b, uint64 c, uint64 d)') as (
  option: number,
  a: number,
  b: number,
  c: number,
  d: number,
) => number;

const P_ALL = 0;
const P_PID = 1;
const WNOHANG = 1;
const WEXITED = 4;
const WNOWAIT = 0x01000000;
const CLD_EXITED = 1;
const PR_SET_CHILD_SUBREAPER = 36;
const PR_SET_DUMPABLE = 4;

export interface ExitStatus {
  /** Exit code, or null when a signal ended the process. */
  readonly code: number | null;
  /** Number of the fatal signal, or null. */
  readonly signal: number | null;
}

/** What a shell reports: the exit code, or 128 + the signal's number. */
export function shellCode(status: ExitStatus): number {
  return status.signal === null ? (status.code ?? 0) : 128 + status.signal;
}

export function signalName(signal: number): string {
  const found = Object.entries(osConstants.signals).find(([, value]) => value === signal);
  return found === undefined ? `signal ${signal}` : found[0];
}

export function signalNumber(name: string): number | undefined {
  const key = name.startsWith('SIG') ? name : `SIG${name}`;
  return (osConstants.signals as Readonly<Record<string, number>>)[key];
}

/** PID of some child that has ended and not been reaped, left unreaped; undefined when there is none. */
export function peekEndedChild(): number | undefined {
  const info = Buffer.alloc(128);
  if (waitid(P_ALL, 0, info, WEXITED | WNOHANG | WNOWAIT) < 0) return undefined;
  const pid = info.readInt32LE(16);
  return pid === 0 ? undefined : pid;
}

/** Reap child `pid` if it has ended; `running` while it has not, `gone` when it is no child of ours. */
export function reap(pid: number): ExitStatus | 'running' | 'gone' {
  const info = Buffer.alloc(128);
  if (waitid(P_PID, pid, info, WEXITED | WNOHANG) < 0) {
    return lastErrno() === osConstants.errno.ECHILD ? 'gone' : 'running';
  }
  if (info.readInt32LE(16) === 0) return 'running';
  const status = info.readInt32LE(24);
  return info.readInt32LE(8) === CLD_EXITED ? { code: status, signal: null } : { code: null, signal: status & 0x7f };
}

/** Make this process the parent of the orphans below it. Survives exec. */
export function becomeSubreaper(): void {
  check(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 'prctl PR_SET_CHILD_SUBREAPER');
}

/** Let CRIU and /proc see this process after a change of identity. */
export function setDumpable(): void {
  check(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 'prctl PR_SET_DUMPABLE');
}
