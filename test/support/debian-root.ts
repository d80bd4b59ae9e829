// SPDX-License-Identifier: Apache-2.0
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { findMirrors } from '../../src/criu/runtime/mirror.js';

/** What is in a root; the same recipe is made once. */
export interface RootRecipe {
  readonly suite: string;
  readonly packages: readonly string[];
}

/** Whether roots can be made here. The set-up brings mmdebstrap; another distribution's mirror has no Debian. */
export const canMakeRoots =
  process.getuid?.() === 0 &&
  existsSync('/etc/os-release') &&
  /^ID=debian$/m.test(readFileSync('/etc/os-release', 'utf8')) &&
  ['mmdebstrap', 'flock', 'unshare'].every((tool) => spawnSync('which', [tool], { stdio: 'ignore' }).status === 0);

/** Outside of the checkout, so that a fresh clone need not make it again. */
const CACHE = process.env['FF_TEST_CACHE'] ?? '/var/cache/fastfreeze-test';

/** Longer than a slow mirror takes on a loaded machine. */
export const MAKE_ROOT_MS = 900_000;

/**
 * The directory of a Debian system of that recipe, for servers that this machine's Debian does not have. Made out of this
 * machine's own mirror when it is not there yet; never to be written into, since tests share it.
 */
export async function debianRoot(recipe: RootRecipe): Promise<string> {
  const { suite, packages } = recipe;
  const hash = createHash('sha256').update(JSON.stringify(recipe)).digest('hex').slice(0, 8);
  const root = join(CACHE, `${suite}-${hash}`);
  if (existsSync(root)) return root;
  const [mirror] = await findMirrors();
  if (mirror === undefined) throw new Error('apt knows no Debian mirror here, so no Debian root can be made');
  process.stderr.write(`test: making ${root}, once: Debian ${suite} with ${packages.join(', ')}\n`);
  mkdirSync(CACHE, { recursive: true });
  const limit = ['-k', '5', String(MAKE_ROOT_MS / 1000)];
  const make = ['flock', join(CACHE, 'lock'), 'sh', '-c', MAKE, 'sh', root, suite, packages.join(','), mirror];
  const maker = spawn('timeout', [...limit, ...make], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  maker.stderr.on('data', (data: Buffer) => (said = (said + data.toString()).slice(-4000)));
  const [code] = (await once(maker, 'close')) as [number | null];
  if (code !== 0) throw new Error(`making ${root} failed (${String(code)}):\n${said}`);
  return root;
}

/** Debian 11, whose C library is older than CRIU's and whose unshare is too; where the mirror has dropped it, Debian 12. */
export async function olderRecipe(): Promise<RootRecipe> {
  const [oldest, old] = ['bullseye', 'bookworm'].map((suite) => ({ suite, packages: ['util-linux'] }));
  if (oldest === undefined || old === undefined) throw new Error('no suites');
  try {
    await debianRoot(oldest);
    return oldest;
  } catch (error) {
    process.stderr.write(`test: ${String(error)}\ntest: taking Debian 12 instead\n`);
    return old;
  }
}

/**
 * Of several at once the first makes it and the others wait for the lock, which children keep even when their shell is
 * killed. It gets its name when it is complete; what a dead one has left is removed.
 */
const MAKE = `
set -eu
[ ! -d "$1" ] || exit 0
rm -rf --one-file-system "$1.part" "$1.tmp"
mkdir "$1.tmp"
TMPDIR="$1.tmp" unshare --mount --pid --fork --kill-child --mount-proc \\
  mmdebstrap --mode=root --quiet --variant=minbase --include="$3" --aptopt='Acquire::Retries "2"' "$2" "$1.part" "$4"
rm -rf "$1.tmp"
mv "$1.part" "$1"
`;
