// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import { FastFreezeError } from '../../base/errors.js';
import { unshareCommand } from '../../linux/unshare-command.js';
import type { ToolResult } from './tool.js';
import { runTool, whyFailed } from './tool.js';
import { OLDEST_VERSION, isTooOld, parseCriuVersion, versionWarning } from './version.js';

export interface CheckOptions {
  /** CRIU runs as real root; otherwise it is tried the way it will be used, in a user namespace. */
  readonly privileged: boolean;
  readonly env?: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal;
}

export type Verdict =
  | { readonly works: true; readonly version: string; readonly warning?: string }
  | { readonly works: false; readonly version?: string; readonly reason: string };

/** The container of a normal user, as the launcher makes it. */
export function userContainer(): string[] {
  const namespaces = ['--user', '--map-root-user', '--pid', '--fork', '--mount', '--mount-proc'];
  const ipc = existsSync('/proc/self/ns/ipc') ? ['--ipc'] : [];
  return [...unshareCommand(), ...namespaces, ...ipc, '--kill-child'];
}

/** How a refusal begins that is not CRIU's fault, and that no other CRIU would mend. */
export const NO_USER_NAMESPACE = 'no user namespace can be made here';

const CHECK_TIMEOUT_MS = 20_000;

/** Whether a CRIU works on this kernel: its version is new enough and `criu check` finds nothing missing. */
export async function checkCriu(command: readonly string[], options: CheckOptions): Promise<Verdict> {
  const common = { timeoutMs: CHECK_TIMEOUT_MS, env: options.env ?? process.env, ...signalOf(options) };
  const shown = await runTool([...command, '--version'], common);
  const version = parseCriuVersion(shown.stdout);
  if (shown.aborted) throw new FastFreezeError({ code: 'aborted', op: 'check CRIU', reason: 'stopped on request' });
  if (version === undefined) return { works: false, reason: `\`criu --version\` failed: ${whyFailed(shown)}` };
  if (isTooOld(version)) {
    return {
      works: false,
      version,
      reason: `version ${version} is too old, ${OLDEST_VERSION} is the oldest that works`,
    };
  }
  let checked = await runTool(checkCommand(command, options.privileged), common);
  if (!options.privileged && noUserNamespace(checked)) {
    // In a container that was given CAP_CHECKPOINT_RESTORE instead, CRIU needs no namespace of ours.
    const direct = await runTool([...command, 'check', '--unprivileged'], common);
    if (whyNotGood(direct, false) === undefined) checked = direct;
  }
  if (checked.aborted) throw new FastFreezeError({ code: 'aborted', op: 'check CRIU', reason: 'stopped on request' });
  const reason = whyNotGood(checked, options.privileged);
  if (reason !== undefined) return { works: false, version, reason };
  const warning = versionWarning(version);
  return { works: true, version, ...(warning === undefined ? {} : { warning }) };
}

function checkCommand(command: readonly string[], privileged: boolean): string[] {
  return privileged ? [...command, 'check'] : [...userContainer(), ...command, 'check', '--unprivileged'];
}

/** Complaints of `criu check` in a container of Docker's kind that say nothing about what we do in it. */
const HARMLESS_ANYWHERE = [
  // No /dev/net/tun: what is not there cannot be open in an application.
  /tun: Unable to create tun: No such file or directory/,
  // A container of our own has a /proc/sys of its own, and without one PIDs are chosen otherwise (container/pids.ts).
  /ns_last_pid sysctl is inaccessible: Read-only file system/,
];

/**
 * `criu check` in a user namespace always complains about the network namespace, which still belongs to the
 * machine. A container that shares the network never asks CRIU for that, so these complaints do not count.
 */
const HARMLESS_IN_USER_NAMESPACE = [
  /net: Unexpected error: -1\(Operation not permitted\)/,
  /Can't turn TCP repair mode ON: Operation not permitted/,
  /rlimit: Can't setup RLIMIT_NOFILE for self/,
];

/** Undefined when CRIU is content; exported for its tests. */
export function whyNotGood(checked: ToolResult, privileged: boolean): string | undefined {
  if (checked.ok) return undefined;
  const errors = checked.stderr.split('\n').filter((line) => /^(?:\([\d.]+\) )?Error \(/.test(line));
  const harmless = [...HARMLESS_ANYWHERE, ...(privileged ? [] : HARMLESS_IN_USER_NAMESPACE)];
  const telling = errors.filter((line) => !harmless.some((known) => known.test(line)));
  const finished = checked.stderr.includes('Does not look good');
  if (errors.length > 0 && finished && !checked.timedOut && telling.length === 0) return undefined;
  const first = telling[0]?.replace(/^.*?Error \([^)]*\): /, '').trim();
  if (!privileged && noUserNamespace(checked)) {
    return `${NO_USER_NAMESPACE} (${whyFailed(checked)})`;
  }
  const why = `\`criu check\` failed: ${first ?? whyFailed(checked)}`;
  // CRIU connects to itself. A fresh network namespace, as `unshare --net` makes it, cannot even do that.
  return /Network is unreachable/.test(why) ? `${why} (is the loopback interface down? ip link set lo up)` : why;
}

function noUserNamespace(checked: ToolResult): boolean {
  return /^unshare: /m.test(checked.stderr) || checked.missing;
}

function signalOf(options: CheckOptions): { signal?: AbortSignal } {
  return options.signal === undefined ? {} : { signal: options.signal };
}
