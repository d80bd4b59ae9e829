// SPDX-License-Identifier: Apache-2.0
import { readFile } from 'node:fs/promises';
import { unshareCommand } from '../../../linux/unshare-command.js';
import { runTool, whyFailed } from '../tool.js';
import type { ExamineOptions } from './examine.js';
import type { Row } from './row.js';
import { fail, ok } from './row.js';

const NAME = 'user-namespaces';
const TRY_TIMEOUT_MS = 10_000;

interface Setting {
  readonly path: string;
  readonly forbids: (value: string) => boolean;
  readonly remedy: string;
}

/** The switches with which distributions forbid them, each with the word that allows them. */
const SETTINGS: readonly Setting[] = [
  {
    path: 'user/max_user_namespaces',
    forbids: (value) => value === '0',
    remedy: 'as root: sysctl -w user.max_user_namespaces=15000',
  },
  {
    path: 'kernel/unprivileged_userns_clone',
    forbids: (value) => value === '0',
    remedy: 'as root: sysctl -w kernel.unprivileged_userns_clone=1',
  },
  {
    path: 'kernel/apparmor_restrict_unprivileged_userns',
    forbids: (value) => value !== '0',
    remedy: 'as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0',
  },
];

/** Whether a normal user can have a container. Root needs none of it. */
export async function examineUserNamespaces(options: ExamineOptions): Promise<Row> {
  if (options.privileged) return ok(NAME, 'not needed: running as root');
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  const tried = await runTool([...unshareCommand(), '--user', '--map-root-user', 'true'], {
    timeoutMs: TRY_TIMEOUT_MS,
    ...signal,
  });
  if (tried.ok) return ok(NAME, 'a normal user can make them');
  for (const setting of SETTINGS) {
    const value = await valueOf(setting.path);
    if (value !== undefined && setting.forbids(value)) {
      const detail = `${setting.path.replace('/', '.')} = ${value} forbids them (${whyFailed(tried)})`;
      return fail(NAME, detail, setting.remedy);
    }
  }
  const remedy = 'in a container: allow unshare(2) (seccomp=unconfined); or run as root';
  return fail(NAME, `they cannot be made: ${whyFailed(tried)}`, remedy);
}

async function valueOf(path: string): Promise<string | undefined> {
  const text = await readFile(`/proc/sys/${path}`, 'utf8').catch(() => undefined);
  return text?.trim();
}
