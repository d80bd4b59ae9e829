// SPDX-License-Identifier: Apache-2.0
import { closeSync, existsSync, openSync, readdirSync } from 'node:fs';
import { check, libc } from './libc.js';

const unshare = libc.func('int unshare(int flags)') as (flags: number) => number;
const setns = libc.func('int setns(int fd, int kind)') as (fd: number, kind: number) => number;
const semctl = libc.func('int semctl(int id, int number, int command)') as (
  id: number,
  number: number,
  command: number,
) => number;
const shmctl = libc.func('int shmctl(int id, int command, void *buffer)') as (
  id: number,
  command: number,
  buffer: null,
) => number;
const syscall = libc.func('long syscall(long number, long a, long b, long c, long d, long e)') as (
  ...words: [number, number, number, number, number, number]
) => number;
const fsopen = libc.func('long syscall(long number, const char *type, uint flags)') as (
  number: number,
  type: string,
  flags: number,
) => number;

const CLONE_SYSVSEM = 0x00040000;
const CLONE_NEWIPC = 0x08000000;
const GETPID = 11;
const IPC_RMID = 0;
const KCMP_SYSVSEM = 6;
const SYS_KCMP = 312;
const SYS_FSOPEN = 430;
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_CMD_CREATE = 6;

/*
 * System V IPC and POSIX message queues are seen by whoever is in their namespace, and a namespace belongs to a thread. So
 * this one goes there for the time of an action that must not wait, and comes back: nothing else runs on it meanwhile.
 */

/** Do something, such as starting a process, in a fresh IPC namespace. Throws SystemError where that is not allowed. */
export function inNewIpcNamespace<T>(action: () => T): T {
  return elsewhere(() => check(unshare(CLONE_NEWIPC), 'unshare', 'IPC namespace'), action);
}

/** Do something in a process's IPC namespace. Throws SystemError where that is not allowed, or the process has gone. */
export function inIpcNamespaceOf<T>(pid: number, action: () => T): T {
  const fd = openSync(`/proc/${pid}/ns/ipc`, 'r');
  try {
    return elsewhere(() => check(setns(fd, CLONE_NEWIPC), 'setns', 'IPC namespace'), action);
  } finally {
    closeSync(fd);
  }
}

/**
 * Throws the system's error where the limits of the IPC namespace that we are in may not be set, as a restore must. Before Linux
 * 6.9, unless a distribution has taken the patch, only the machine's own root may, whoever the namespace belongs to.
 */
export function requireLimits(): void {
  for (const path of ['/proc/sys/kernel/sem', '/proc/sys/fs/mqueue/queues_max']) {
    // Opened as CRIU does it; nothing is written.
    if (existsSync(path)) closeSync(openSync(path, 'r+'));
  }
}

function elsewhere<T>(leave: () => void, action: () => T): T {
  const home = openSync('/proc/thread-self/ns/ipc', 'r');
  try {
    // Who may not come back does not leave.
    check(setns(home, CLONE_NEWIPC), 'setns', 'IPC namespace');
    leave();
    try {
      return action();
    } finally {
      check(setns(home, CLONE_NEWIPC), 'setns', 'IPC namespace');
    }
  } finally {
    closeSync(home);
  }
}

/** The PID that last changed a semaphore of a set, as seen here; 0 for none, and for one that is not seen here. */
export function lastChangeOfSemaphore(id: number, number: number): number {
  return Math.max(0, semctl(id, number, GETPID));
}

/** Let a segment of shared memory go with its last mapping. */
export function removeSegment(id: number): void {
  check(shmctl(id, IPC_RMID, null), 'shmctl', `segment ${id}`);
}

/**
 * Do now what this thread's end would: give back the semaphores that it has taken with SEM_UNDO, and have no list of any. False
 * where a filter of system calls forbids it.
 */
export function forgetSemaphoreUndo(): boolean {
  return unshare(CLONE_SYSVSEM) === 0;
}

/**
 * Whether a thread has a list of semaphores to undo at its end: the kernel makes one, empty, with a process's second thread, and
 * else when SEM_UNDO is used. Undefined where that cannot be told. To be called on the main thread.
 */
export function hasSemaphoreUndo(tid: number): boolean | undefined {
  // The kernel only compares, so we have none; each thread that we start gives us one again.
  if (!forgetSemaphoreUndo()) return undefined;
  const answer = syscall(SYS_KCMP, tid, process.pid, KCMP_SYSVSEM, 0, 0);
  return answer < 0 ? undefined : answer !== 0;
}

/** Names of the POSIX message queues of our IPC namespace. Throws SystemError where they may not be looked at. */
export function messageQueues(): string[] {
  const context = check(fsopen(SYS_FSOPEN, 'mqueue', FSOPEN_CLOEXEC), 'fsopen', 'mqueue');
  try {
    check(syscall(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, 0, 0, 0), 'fsconfig', 'mqueue');
    // Mounted nowhere: nobody else sees it.
    const root = check(syscall(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, 0, 0, 0), 'fsmount', 'mqueue');
    try {
      return readdirSync(`/proc/self/fd/${root}`);
    } finally {
      closeSync(root);
    }
  } finally {
    closeSync(context);
  }
}
