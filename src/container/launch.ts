// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { FastFreezeError } from '../base/errors.js';
import { WHAT_A_CONTAINER_NEEDS } from '../base/hints.js';
import { type Clocks, readClockOffsets, readClocks } from '../linux/clocks.js';
import { unshareCommand } from '../linux/unshare-command.js';
import { hasTimeNamespaces } from './time.js';

export interface LaunchOptions {
  /** The program that becomes PID 1, with its arguments. */
  readonly command: readonly string[];
  /** False where the container is already private: the program runs in it as it is. */
  readonly container: boolean;
  /** True for root: no user namespace is needed, and CRIU continues the clocks itself. */
  readonly privileged: boolean;
  /** `OwnIds.mapping` for a normal user that keeps its ids; without, it is uid 0 inside. */
  readonly idMapping?: readonly string[];
  /** Clocks of the image to restore; the container's continue from there. */
  readonly clocks: Clocks | undefined;
  /** Held by everything we start, so that the job counts as running until the last of it has gone. */
  readonly lockFd: number;
}

export interface Launched {
  readonly child: ChildProcess;
  /** Both ways, one JSON message a line. */
  readonly channel: Socket;
  /** Exit code of the container's PID 1; 128 + n when something killed it. */
  readonly exited: Promise<number>;
}

/** Start the supervisor in a container of its own. The caller's process stays outside and talks over the channel. */
export function launch(options: LaunchOptions): Launched {
  const argv = options.container ? [...unshareArguments(options), '--', ...options.command] : options.command;
  const [file, ...args] = argv;
  const child = spawn(file ?? 'unshare', args, {
    // The standard streams go straight to the supervisor; 3 is the channel, 4 keeps the job's lock.
    stdio: ['inherit', 'inherit', 'inherit', 'pipe', options.lockFd],
    // Away from the terminal's process group: unshare dies of signals that are meant for the application.
    detached: true,
    // libuv's pool: one thread waits in poll, the others compress.
    env: { ...process.env, UV_THREADPOOL_SIZE: String(threadCount()) },
  });
  const exited = new Promise<number>((resolve, reject) => {
    child.once('error', (error) => reject(launchFailure(file ?? 'unshare', error)));
    child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 137)));
  });
  return { child, channel: child.stdio[3] as Socket, exited };
}

/** FF_THREADS: how many threads the supervisor's pool has. Throws `usage` for what cannot be meant. */
export function threadCount(): number {
  const text = process.env['FF_THREADS'] ?? '';
  if (text === '') return DEFAULT_THREADS;
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= MIN_THREADS && count <= MAX_THREADS) return count;
  throw new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: `FF_THREADS=${text}`,
    reason: `expected a whole number from ${MIN_THREADS} to ${MAX_THREADS}`,
    hint: `leave it unset for ${DEFAULT_THREADS}`,
  });
}

const DEFAULT_THREADS = 5;
/** One waits all the time. */
const MIN_THREADS = 2;
/** libuv's own limit. */
const MAX_THREADS = 1024;

function unshareArguments(options: LaunchOptions): string[] {
  return [
    ...unshareCommand(),
    ...(options.privileged ? [] : (options.idMapping ?? ['--user', '--map-root-user'])),
    ...['--pid', '--fork', '--mount', '--mount-proc', '--kill-child'],
    // The application has one of its own. The supervisor looks into it, and a normal user may not come back to the machine's.
    ...(options.privileged || !hasIpcNamespaces() ? [] : ['--ipc']),
    ...(options.privileged || !hasTimeNamespaces() ? [] : timeArguments(options.clocks)),
  ];
}

/** Whether this kernel has IPC namespaces (CONFIG_IPC_NS). */
function hasIpcNamespaces(): boolean {
  return existsSync('/proc/self/ns/ipc');
}

/** Offsets that let the container's clocks continue the image's. Whole seconds, rounded up: no clock may run back. */
function timeArguments(clocks: Clocks | undefined): string[] {
  if (clocks === undefined) return ['--time'];
  const now = readClocks();
  // The kernel counts offsets from the machine's own clocks, and we may be in a time namespace ourselves.
  const ours = readClockOffsets();
  const offset = (image: bigint, shown: bigint, own: bigint): string => ceilSeconds(image - (shown - own)).toString();
  return [
    '--time',
    `--monotonic=${offset(clocks.monotonicNs, now.monotonicNs, ours.monotonicNs)}`,
    `--boottime=${offset(clocks.boottimeNs, now.boottimeNs, ours.boottimeNs)}`,
  ];
}

function ceilSeconds(ns: bigint): bigint {
  const second = 1_000_000_000n;
  const whole = ns / second;
  return ns > 0n && ns % second !== 0n ? whole + 1n : whole;
}

function launchFailure(file: string, error: Error): FastFreezeError {
  return new FastFreezeError({
    code: 'host',
    op: 'make a container with',
    subject: file,
    reason: error.message,
    hint: 'install util-linux 2.38 or later',
    cause: error,
  });
}

/** Why `unshare` could not make a container, as far as this machine tells. */
export function containerFailure(privileged: boolean): FastFreezeError {
  const limits: readonly [string, string, string][] = [
    ['user.max_user_namespaces', '0', 'sysctl -w user.max_user_namespaces=10000'],
    ['user.max_ipc_namespaces', '0', 'sysctl -w user.max_ipc_namespaces=10000'],
    ['kernel.unprivileged_userns_clone', '0', 'sysctl -w kernel.unprivileged_userns_clone=1'],
    ['kernel.apparmor_restrict_unprivileged_userns', '1', 'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'],
  ];
  const found = privileged ? undefined : limits.find(([name, bad]) => readSysctl(name) === bad);
  const reason =
    found === undefined
      ? `this ${privileged ? 'container' : 'user'} may not make namespaces (unshare was refused)`
      : `${found[0]} is ${found[1]}: normal users may not make ${found[0].includes('ipc') ? 'IPC' : 'user'} namespaces`;
  return new FastFreezeError({
    code: 'host',
    op: 'make a container for the application',
    reason,
    hint: found === undefined ? WHAT_A_CONTAINER_NEEDS : `${found[2]} (as root)`,
  });
}

function readSysctl(name: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, 'utf8').trim();
  } catch {
    // This kernel has no such switch.
    return undefined;
  }
}
