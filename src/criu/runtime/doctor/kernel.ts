// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { release } from 'node:os';
import { gunzipSync } from 'node:zlib';
import type { Row } from './row.js';
import { fail, ok, warn } from './row.js';

/** Without these nothing works. */
const NEEDED = ['CHECKPOINT_RESTORE', 'PID_NS', 'EPOLL', 'EVENTFD', 'FHANDLE', 'INOTIFY_USER'];
/** Without these some programs cannot be dumped. */
const USEFUL = ['UNIX_DIAG', 'INET_DIAG', 'INET_TCP_DIAG', 'INET_UDP_DIAG', 'PACKET_DIAG', 'NETLINK_DIAG', 'TIME_NS'];

const OLDEST = [5, 9] as const;

/** The kernel's version, and its configuration where it can be read. */
export async function examineKernel(): Promise<Row> {
  const version = release();
  const [major = 0, minor = 0] = version.split('.').map(Number.parseFloat);
  if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
    return fail('kernel', `${version} lacks CAP_CHECKPOINT_RESTORE and clone3(set_tid)`, 'use Linux 5.9 or later');
  }
  const options = await readConfiguration(version);
  if (options === undefined) return withoutConfiguration(version);
  const missing = NEEDED.filter((name) => !options.has(name));
  if (missing.length > 0) {
    const detail = `${version} was built without ${missing.map((name) => `CONFIG_${name}`).join(', ')}`;
    return fail('kernel', detail, "use a distribution's own kernel; they have these options");
  }
  const lacking = USEFUL.filter((name) => !options.has(name));
  if (lacking.length === 0) return ok('kernel', `${version}, all options that CRIU uses are on`);
  const names = lacking.map((name) => `CONFIG_${name}`).join(', ');
  return warn('kernel', `${version} lacks ${names}`, 'jobs with such sockets or clocks need a kernel that has them');
}

async function readConfiguration(version: string): Promise<Set<string> | undefined> {
  const packed = await readFile('/proc/config.gz').catch(() => undefined);
  if (packed !== undefined) return parseKernelConfig(gunzipSync(packed).toString('utf8'));
  const text = await readFile(`/boot/config-${version}`, 'utf8').catch(() => undefined);
  return text === undefined ? undefined : parseKernelConfig(text);
}

/** The names that are built in or modules. */
export function parseKernelConfig(text: string): Set<string> {
  return new Set([...text.matchAll(/^CONFIG_(\w+)=[ym]$/gm)].map((match) => match[1] ?? ''));
}

function withoutConfiguration(version: string): Row {
  // This file exists only where CONFIG_CHECKPOINT_RESTORE is on.
  if (existsSync('/proc/sys/kernel/ns_last_pid')) return ok('kernel', `${version}, with checkpoint and restore`);
  const detail = `${version} was built without CONFIG_CHECKPOINT_RESTORE`;
  return fail('kernel', detail, "use a distribution's own kernel; they have this option");
}
