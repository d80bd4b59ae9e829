// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { promisify } from 'node:util';
import { unshareCommand } from '../linux/unshare-command.js';

/** Whom the application sees when it asks who it is. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
}

/** How a normal user keeps its own ids in its user namespace, whose root is then a subordinate id. */
export interface OwnIds extends Identity {
  readonly state: 'usable';
  /** Arguments that make `unshare` map them, and leave its child all capabilities of the namespace. */
  readonly mapping: readonly string[];
  /** Words before CRIU's own: it must be root of the namespace, whatever else it is. */
  readonly asRoot: readonly string[];
}

export interface NoOwnIds {
  /** `absent`: nobody set it up. `refused`: set up, but it does not work. */
  readonly state: 'absent' | 'refused';
  readonly reason: string;
  readonly hint: string;
}

/** Words before the application's: our capabilities of the namespace are not for it. Everything else stays as it is. */
export const WITHOUT_CAPABILITIES: readonly string[] = ['setpriv', '--ambient-caps=-all', '--inh-caps=-all'];

const PROBE_TIMEOUT_MS = 10_000;

/** Look for subordinate ids, and prove that they work. */
export async function findOwnIds(): Promise<OwnIds | NoOwnIds> {
  const uid = process.getuid?.() ?? 0;
  const gid = process.getgid?.() ?? 0;
  const owners = ownerNames(uid);
  const firstUid = firstSubordinate(readText('/etc/subuid'), owners);
  const firstGid = firstSubordinate(readText('/etc/subgid'), owners);
  if (firstUid === undefined || firstGid === undefined) {
    const who = owners[1] ?? String(uid);
    return {
      state: 'absent',
      reason: `${who} has no subordinate ids in ${firstUid === undefined ? '/etc/subuid' : '/etc/subgid'}`,
      hint: `as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${who} (a range that nobody has)`,
    };
  }
  const mapping = [
    ...['--user', `--map-user=${uid}`, `--map-group=${gid}`],
    ...[`--map-users=${firstUid},0,1`, `--map-groups=${firstGid},0,1`],
    '--keep-caps',
  ];
  return await probe({ uid, gid }, mapping);
}

/** The start of the first range that one of `owners` (name or number) has. */
export function firstSubordinate(text: string, owners: readonly string[]): number | undefined {
  for (const line of text.split('\n')) {
    const match = /^([^:]+):(\d{1,10}):(\d{1,10})\s*$/.exec(line);
    if (match !== null && owners.includes(match[1] ?? '') && Number(match[3]) > 0) return Number(match[2]);
  }
  return undefined;
}

/*
 * Which way of being root is open to CRIU. It looks at its real uid. With that alone changed it opens files as the
 * user does, but before Linux 6.16 exec takes its capabilities away. With all its ids changed it always has them, but
 * opens files as a stranger with CAP_DAC_OVERRIDE, which does not reach over NFS, nor files of the user's other groups:
 * good only where it may enter the working directory.
 */
const PROBE = `
setpriv --ruid=0 grep -q '^CapEff:.*[1-9a-f]' /proc/self/status && exec echo --ruid=0
setpriv --reuid=0 --regid=0 --keep-groups ls -d ./. >/dev/null 2>&1 && exec echo --reuid=0 --regid=0 --keep-groups
echo 'they may not enter the working directory, so that CRIU could not open its files' >&2
exit 1
`;

async function probe(identity: Identity, mapping: readonly string[]): Promise<OwnIds | NoOwnIds> {
  const [unshare, ...flags] = unshareCommand();
  const words = [...flags, ...mapping, 'sh', '-c', PROBE];
  try {
    const { stdout } = await promisify(execFile)(unshare, words, { timeout: PROBE_TIMEOUT_MS });
    return { state: 'usable', ...identity, mapping, asRoot: ['setpriv', ...stdout.trim().split(' ')] };
  } catch (error) {
    return noOwnIds(error as Error & { stderr?: string });
  }
}

/** Why `unshare` or the probe in it failed. */
export function noOwnIds(error: { readonly message: string; readonly stderr?: string }): NoOwnIds {
  const said = error.stderr?.trim().split('\n')[0] ?? '';
  if (/failed to execute new[ug]idmap/.test(said)) {
    return { state: 'absent', reason: 'newuidmap and newgidmap are not installed', hint: 'install the package uidmap' };
  }
  return {
    state: 'refused',
    reason: `the subordinate ids cannot be used: ${said === '' ? error.message : said}`,
    hint: /working directory/.test(said)
      ? 'Linux 6.16 or later, or a directory on a local file system whose group is your own'
      : 'newuidmap and newgidmap must be set-uid, and the ranges in /etc/subuid and /etc/subgid valid',
  };
}

/** An entry may name the user by number or by name. */
function ownerNames(uid: number): string[] {
  try {
    return [String(uid), userInfo().username];
  } catch {
    // No entry in the user database.
    return [String(uid)];
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Without the file nobody has a range.
    return '';
  }
}
