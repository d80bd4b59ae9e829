// SPDX-License-Identifier: Apache-2.0
import { readFile } from 'node:fs/promises';
import type { ExamineOptions } from './examine.js';
import type { Row } from './row.js';
import { fail, ok, warn } from './row.js';

/** Yama: 3 forbids every attaching, and CRIU attaches to what it dumps. */
export async function examinePtrace(): Promise<Row> {
  const scope = await readSetting('kernel/yama/ptrace_scope');
  if (scope === undefined) return ok('ptrace', 'not restricted (no Yama)');
  if (scope < 3) return ok('ptrace', `kernel.yama.ptrace_scope = ${scope}: CRIU may attach`);
  const remedy =
    'set kernel.yama.ptrace_scope to 2 or less in /etc/sysctl.d and restart: it cannot be lowered in place';
  return fail('ptrace', `kernel.yama.ptrace_scope = ${scope} forbids attaching to processes`, remedy);
}

/** A filter that this shell has, every job started from it has too. */
export async function examineSeccomp(): Promise<Row> {
  const status = await readFile('/proc/self/status', 'utf8');
  const mode = /^Seccomp:\s*(\d)/m.exec(status)?.[1];
  if (mode === undefined) return ok('seccomp', 'this kernel has none');
  if (mode === '0') return ok('seccomp', 'no filter is active');
  const detail = 'a filter is active and jobs inherit it: CRIU can dump them only where the canary below can be';
  const remedy =
    'docker run --security-opt seccomp=unconfined; Kubernetes: securityContext.seccompProfile.type: Unconfined';
  return warn('seccomp', detail, remedy);
}

const WANTED_PIPE_BYTES = 1024 * 1024;
/** Below this many pages per user the kernel gives new pipes one page only. */
const WANTED_USER_PAGES = 4096;

/** The image leaves CRIU through pipes; small ones cost time, nothing else. */
export async function examinePipes(options: ExamineOptions): Promise<Row> {
  const largest = await readSetting('fs/pipe-max-size');
  const userPages = await readSetting('fs/pipe-user-pages-soft');
  const found = `fs.pipe-max-size = ${String(largest)}, fs.pipe-user-pages-soft = ${String(userPages)}`;
  if (options.privileged || largest === undefined || userPages === undefined) return ok('pipes', found);
  if (largest < WANTED_PIPE_BYTES) {
    return warn('pipes', `${found}: dumps are slower`, `as root: sysctl -w fs.pipe-max-size=${WANTED_PIPE_BYTES}`);
  }
  if (userPages !== 0 && userPages < WANTED_USER_PAGES) {
    return warn('pipes', `${found}: dumps are slower`, 'as root: sysctl -w fs.pipe-user-pages-soft=16384');
  }
  return ok('pipes', found);
}

async function readSetting(path: string): Promise<number | undefined> {
  const text = await readFile(`/proc/sys/${path}`, 'utf8').catch(() => undefined);
  return text === undefined ? undefined : Number.parseInt(text, 10);
}
