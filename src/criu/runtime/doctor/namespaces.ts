// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { WHAT_A_CONTAINER_NEEDS } from '../../../base/hints.js';
import { userContainer } from '../check.js';
import { runTool, whyFailed } from '../tool.js';
import type { ExamineOptions } from './examine.js';
import type { Row } from './row.js';
import { fail, ok, warn } from './row.js';

const TRY_TIMEOUT_MS = 10_000;

/** The words that start a command in a container as jobs get one. */
export function containerCommand(privileged: boolean): string[] {
  return userContainer().filter((word) => !privileged || !['--user', '--map-root-user'].includes(word));
}

const CONTAINER_REMEDY =
  'in a container: start it with --privileged, or with seccomp and AppArmor unconfined; elsewhere see user-namespaces';

/** Whether a private set of PIDs and mounts can be made. */
export async function examineNamespaces(options: ExamineOptions): Promise<Row> {
  const tried = await tryInContainer(options, [], 'test "$$" = 1 && test -d /proc/1');
  if (tried.ok) return ok('namespaces', 'a container with its own PIDs, mounts and /proc can be made');
  return fail('namespaces', `no container can be made: ${whyFailed(tried)}`, CONTAINER_REMEDY);
}

/** Whether PIDs can be chosen in the container: a restored process must get the one that it had. */
export async function examinePidControl(options: ExamineOptions): Promise<Row> {
  const tried = await tryInContainer(options, [], 'echo 999 >/proc/sys/kernel/ns_last_pid; sh -c "echo \\$\\$"; :');
  if (tried.stdout.trim() === '1000') return ok('pid-control', 'PIDs can be chosen in a container (ns_last_pid)');
  const remedy =
    '/proc/sys must be writable in a container: docker run --privileged, or --security-opt systempaths=unconfined';
  return fail('pid-control', `ns_last_pid cannot be set: ${whyFailed(tried)}`, remedy);
}

const OFFSET_SECONDS = 100_000;

/** Whether a container can have its own clocks: a restored process must not see CLOCK_MONOTONIC jump. */
export async function examineClocks(options: ExamineOptions): Promise<Row> {
  const offset = String(OFFSET_SECONDS);
  const words = ['--time', '--monotonic', offset, '--boottime', offset];
  const before = await readFile('/proc/uptime', 'utf8');
  const tried = await tryInContainer(options, words, 'cat /proc/uptime');
  if (tried.ok && wasShifted(before, tried.stdout)) return ok('clocks', 'time namespaces work');
  const problem = `a time namespace cannot be made (${whyFailed(tried)})`;
  // The container of a normal user has one wherever the kernel knows them; for root it is CRIU that makes it.
  if (!options.privileged && existsSync('/proc/self/ns/time')) {
    return fail('clocks', `${problem}: no job of a normal user starts`, WHAT_A_CONTAINER_NEEDS);
  }
  const detail = `${problem}: monotonic clocks jump at a restore`;
  return warn('clocks', detail, 'use Linux 5.6 and util-linux 2.36 or later, with CONFIG_TIME_NS');
}

/**
 * Whether the second of two texts of `/proc/uptime` (seconds, with two decimals) was read under the offset. Half of it
 * is enough to tell: both are often read in the same 10 ms, and then the sum in floating point may be the greater one.
 */
export function wasShifted(before: string, inside: string): boolean {
  return Number.parseFloat(inside) - Number.parseFloat(before) > OFFSET_SECONDS / 2;
}

async function tryInContainer(options: ExamineOptions, words: readonly string[], script: string) {
  // A shell, because `ns_last_pid` must be written by a process whose next child is looked at.
  const command = [...containerCommand(options.privileged), ...words, 'sh', '-c', script];
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  return await runTool(command, { timeoutMs: TRY_TIMEOUT_MS, env: options.env, ...signal });
}
