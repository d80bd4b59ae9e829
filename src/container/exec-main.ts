// SPDX-License-Identifier: Apache-2.0
/*
 * The first moments of the application's root process: this file runs in a Node of its own as PID 1000, puts right
 * what only the process itself can (session leader's terminal, orphans, limits, signals), and becomes the program.
 */
import { constants, openSync, readSync, writeSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { closeStrangersOnExec } from '../linux/fds.js';
import { forgetSemaphoreUndo } from '../linux/ipc.js';
import { becomeSubreaper } from '../linux/process.js';
import { takeControllingTerminal } from '../linux/terminal.js';
import { SystemError, check, libc } from '../linux/libc.js';
import type { ExecPlan } from './exec-plan.js';

const dup2 = libc.func('int dup2(int from, int to)') as (from: number, to: number) => number;
const fcntl = libc.func('int fcntl(int fd, int cmd, int arg)') as (fd: number, cmd: number, arg: number) => number;
const lseek = libc.func('int64 lseek(int fd, int64 offset, int whence)') as (f: number, o: number, w: number) => number;
const execvp = libc.func('int execvp(const char *file, const char **argv)') as (
  file: string,
  argv: (string | null)[],
) => number;
const signal = libc.func('void *signal(int number, intptr_t handler)') as (number: number, handler: number) => unknown;
const setrlimit = libc.func('int setrlimit(int what, const void *limits)') as (what: number, l: Uint8Array) => number;
const sigprocmask = libc.func('int sigprocmask(int how, const void *set, void *old)') as (
  how: number,
  set: Uint8Array,
  old: null,
) => number;
const setenv = libc.func('int setenv(const char *name, const char *value, int overwrite)') as (
  n: string,
  v: string,
  o: number,
) => number;
const unsetenv = libc.func('int unsetenv(const char *name)') as (name: string) => number;

const PLAN_FD = 3;
const F_SETFD = 2;
const RLIMIT_NOFILE = 7;
const SIG_DFL = 0;
const SIG_IGN = 1;
const SIG_SETMASK = 2;

try {
  become(JSON.parse(readAll(PLAN_FD)) as ExecPlan);
} catch (error) {
  const errno = error instanceof SystemError ? error.errno : 0;
  const message = error instanceof Error ? error.message : String(error);
  writeSync(PLAN_FD, JSON.stringify({ errno, message }));
  process.exit(errno === osConstants.errno.ENOENT ? 127 : 126);
}

function become(plan: ExecPlan): void {
  // Orphans of the tree stay in the tree: CRIU dumps what is below this process.
  becomeSubreaper();
  if (plan.terminalPath !== undefined) openTerminal(plan.terminalPath, plan.terminalFds);
  if (plan.stdinFile !== undefined) openStdin(plan.stdinFile);
  closeStrangersOnExec();
  // Node's threads brought a list of semaphores to undo with them, empty, which exec would keep: as if the
  // program had used any. Where that may not be, semaphores of the program's are refused at a checkpoint.
  forgetSemaphoreUndo();
  // Node made every descriptor it inherited close-on-exec, these three included.
  for (const fd of [0, 1, 2]) check(fcntl(fd, F_SETFD, 0), 'fcntl');
  if (plan.openFilesLimit !== undefined) limitOpenFiles(plan.openFilesLimit);
  // Node ignores SIGPIPE and SIGXFSZ, and exec would pass that on.
  for (let number = 1; number <= 64; number++) {
    if (number !== osConstants.signals.SIGKILL && number !== osConstants.signals.SIGSTOP) {
      signal(number, plan.ignoredSignals.includes(number) ? SIG_IGN : SIG_DFL);
    }
  }
  sigprocmask(SIG_SETMASK, Buffer.alloc(128), null);
  for (const [name, value] of Object.entries(plan.setEnv)) setenv(name, value, 1);
  for (const name of plan.unsetEnv) unsetenv(name);
  const [file] = plan.command;
  if (file === undefined) throw new Error('no command');
  check(execvp(file, [...plan.command, null]), 'execvp', file);
}

function openTerminal(path: string, fds: readonly number[]): void {
  // The parent made us a session leader, so the first terminal opened becomes ours.
  const terminal = openSync(path, constants.O_RDWR);
  takeControllingTerminal(terminal);
  for (const fd of fds) check(dup2(terminal, fd), 'dup2');
}

function openStdin(file: NonNullable<ExecPlan['stdinFile']>): void {
  const fd = openSync(file.path, file.flags);
  if (file.offset > 0) check(lseek(fd, file.offset, 0), 'lseek', file.path);
  check(dup2(fd, 0), 'dup2');
}

function limitOpenFiles(soft: number): void {
  const limits = Buffer.alloc(16);
  const getrlimit = libc.func('int getrlimit(int what, void *limits)') as (what: number, l: Uint8Array) => number;
  check(getrlimit(RLIMIT_NOFILE, limits), 'getrlimit');
  limits.writeBigUInt64LE(BigInt(soft), 0);
  check(setrlimit(RLIMIT_NOFILE, limits), 'setrlimit');
}

function readAll(fd: number): string {
  const pieces: Buffer[] = [];
  for (;;) {
    const piece = Buffer.alloc(65536);
    const got = readSync(fd, piece);
    if (got === 0) break;
    pieces.push(piece.subarray(0, got));
    // The plan is one line; the other end stays open to hear how it went.
    if (piece.subarray(0, got).includes(10)) break;
  }
  return Buffer.concat(pieces).toString('utf8');
}
