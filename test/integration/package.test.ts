// SPDX-License-Identifier: Apache-2.0
// The archive of `npm run package`, in Debian systems that are not this machine's: without Node.js, npm, CRIU and network.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { BUILDING_PREFIX, CURRENT_LINK, RUNTIME_PREFIX } from '../../src/criu/runtime/layout.js';
import type { Identity } from '../support/bed.js';
import { Container } from '../support/container.js';
import { canMakeRoots, MAKE_ROOT_MS, olderRecipe, type RootRecipe } from '../support/debian-root.js';
import { typed } from '../support/document.js';
import { checkLines } from '../support/lines.js';
import { MAKE_PACKAGE_MS, makePackage, type MadePackage } from '../support/package.js';
import { PATH_OF_JOBS } from '../support/place.js';
import { FULL } from '../support/random.js';
import { fixture, nodePath, packageDir } from '../support/stage.js';
import { SWIFT_ROOT } from '../support/swift.js';
import { until } from '../support/until.js';

jest.setTimeout(120_000);

/** Exactly what the user's shell gives in the worst case; not even HOME. */
const BARE = { PATH: '/usr/local/bin:/usr/bin:/bin' };
/** As root installs it, and as somebody put it somewhere; both read-only. */
const INSTALLED = '/opt/fastfreeze';
const MOVED = "/opt/our apps/it's here (2)";
const UNUSABLE = '/opt/with:colon';
const FIXTURES = '/opt/fixtures';
const COMMANDS: Record<Identity, string> = { root: 'fastfreeze', user: `${MOVED}/bin/fastfreeze` };

let made: MadePackage;

if (canMakeRoots) {
  beforeAll(() => {
    made = makePackage();
  }, MAKE_PACKAGE_MS);

  describe('the archive', theArchive);
  describe('in an older Debian', () => inside(olderRecipe));
  describe('in a newer Debian', () => inside(() => Promise.resolve(newerRecipe())));
} else test.skip('the self-contained package', () => undefined);

/** That of the Swift tests, which is there anyway; at full length one with nothing in it that need not be. */
function newerRecipe(): RootRecipe {
  return FULL ? { suite: 'trixie', packages: ['util-linux'] } : SWIFT_ROOT;
}

function theArchive(): void {
  test('is named with its sizes and its sum, which is right', () => {
    expect(made.said).toMatch(
      /^\S+\/fastfreeze-linux-x64\.tar\.xz: \d+ MB, \d+ MB unpacked\n[0-9a-f]{64} {2}fastfreeze-linux/,
    );
    expect(spawnSync('sha256sum', ['--check', '--quiet', `${made.archive}.sha256`], { cwd: made.folder }).status).toBe(
      0,
    );
    // A release has 27 MB. What slips in by mistake is larger than what versions differ by.
    expect(statSync(made.archive).size).toBeLessThan((FULL ? 32 : 42) * 1_000_000);
  });

  test("everyone may read it, nothing gives rights, no link leads outside, and `install`'s names are free", () => {
    const words = ['--numeric-owner', '-tvJf', made.archive];
    const lines = execFileSync('tar', words, { encoding: 'utf8', maxBuffer: 1 << 26 })
      .trim()
      .split('\n');
    const right = /^(?:-rw-r--r--|-rwxr-xr-x|drwxr-xr-x|l[rwx-]{9}) 0\/0 .* fastfreeze\//;
    expect(lines.filter((line) => !right.test(line))).toEqual([]);
    expect(lines.filter((line) => / -> (?:\/|(?:\.\.\/){6})/.test(line))).toEqual([]);
    const names = readdirSync(made.extracted);
    expect(names.filter((name) => name === CURRENT_LINK || name.startsWith(RUNTIME_PREFIX))).toEqual([]);
    expect(names.filter((name) => name.startsWith(BUILDING_PREFIX))).toEqual([]);
  });

  test('what the documents tell to do with it puts a `fastfreeze` that works on the PATH', () => {
    const lines = typed('README.md', 'tar xJf', 'ln -s /opt/');
    expect(typed('docs/install.md', 'tar xJf', 'ln -s /opt/')).toBe(lines);
    // In folders that only this shell sees.
    const script = `
for folder in /opt /usr/local/bin /mnt; do mount -t tmpfs tmpfs $folder; done
mkdir /mnt/build
cd /mnt
ln -s "$1" build/
${lines}
hash -r
${typed('docs/install.md', 'fastfreeze doctor')}`;
    const words = ['--mount', 'sh', '-euc', script, 'sh', made.archive];
    const said = spawnSync('unshare', words, { encoding: 'utf8', env: { PATH: PATH_OF_JOBS }, timeout: 60_000 });
    expect(said).toMatchObject({ status: 0, stderr: '' });
    expect(said.stdout).toMatch(/from this package: \/opt\/fastfreeze\/[^]*^ok +canary /m);
  });

  test('has the licence of everything in it', () => {
    const text = readFileSync(join(made.extracted, 'licenses/README'), 'utf8');
    const files = [
      ...text.matchAll(/(?:text: |, |: )((?:LICENSE|licenses|lib|node_modules|criu)\S*?)(?=,? |,?\n)/g),
    ].map(([, file]) => file ?? '');
    expect(files.length).toBeGreaterThan(90);
    expect(files.filter((file) => !existsSync(join(made.extracted, file)))).toEqual([]);
    // Of a bundle whose packages are not there themselves.
    expect(readFileSync(join(made.extracted, 'lib/licenses.txt'), 'utf8')).toMatch(
      /^@actions\/cache .*\n\nThe MIT License/m,
    );
    expect(text).toMatch(/^Node\.js v.*\nlibstdc\+\+/m);
    for (const one of readdirSync(join(made.extracted, 'tools')).filter((name) => name !== 'lib')) {
      expect(readdirSync(join(made.extracted, 'licenses'))).toContain(one);
    }
  });

  test('has every module that another one names', () => {
    const [ours, whole] = [namedModules(made.extracted), namedModules(packageDir())];
    expect(ours.checked).toBeGreaterThan(1000);
    // Some packages name others that nobody installs, or in comments; those the whole packages lack as well.
    expect(ours.missing.filter((name) => !whole.missing.includes(name))).toEqual([]);
  });
}

function inside(recipe: () => Promise<RootRecipe>): void {
  let container: Container;
  beforeAll(async () => {
    // Only /opt can be written to while the container is made.
    const mounts = {
      [INSTALLED]: made.extracted,
      [MOVED]: made.extracted,
      [UNUSABLE]: made.extracted,
      [FIXTURES]: fixture('.'),
    };
    // Many images lack it, or have one that is too old.
    const hidden = ['/usr/bin/unshare'];
    container = await Container.start(await recipe(), { mounts, hidden });
    const linked = await container.exec(['ln', '-s', `${INSTALLED}/bin/fastfreeze`, '/usr/local/bin/fastfreeze'], BARE);
    expect(linked).toMatchObject({ code: 0 });
    const others = await container.exec(['sh', '-c', 'command -v node npm criu xz'], BARE);
    expect(others.stdout).not.toMatch(/node|npm|criu/);
  }, MAKE_ROOT_MS);
  afterAll(async () => {
    await container.stop();
  });

  test.each<Identity>(['root', 'user'])('as %s, a job is frozen and continues exactly', async (identity) => {
    const command = COMMANDS[identity];
    const dir = `/tmp/${identity}`;
    expect(await container.exec(['mkdir', '-m', '777', dir], BARE, identity)).toMatchObject({ code: 0 });

    const doctor = await container.exec([command, 'doctor', '--json'], BARE, identity);
    const { ok, rows } = JSON.parse(doctor.stdout) as {
      ok: boolean;
      rows: { name: string; status: string; detail: string }[];
    };
    expect({ ok, failed: rows.filter((row) => row.status === 'fail') }).toEqual({ ok: true, failed: [] });
    expect(rows.find((row) => row.name === 'canary')).toMatchObject({ status: 'ok' });
    expect(rows.find((row) => row.name === 'criu')?.detail).toMatch(/from this package: \/opt\//);

    // Encrypted, since that takes functions out of Node.js's own executable.
    const env = { ...BARE, FF_PASSPHRASE: 'sesame' };
    const words = [command, 'run', '-i', `${dir}/image`, '--', 'sh', `${FIXTURES}/shell-loop.sh`, `${dir}/stop`];
    const first = container.start(words, env, identity);
    await until('the job to work', () => first.stdout().includes('3 shell'), 60_000, first.stderr);
    const frozen = await container.exec([command, 'checkpoint'], BARE, identity);
    expect(frozen).toMatchObject({ code: 0, stderr: expect.stringContaining('complete: generation 1,') });
    expect(await first.code).toBe(137);
    const second = container.start(words, env, identity);
    await until('the job to work on', () => second.stdout().split('\n').length > 3, 60_000, second.stderr);
    expect(await container.exec(['touch', `${dir}/stop`], BARE, identity)).toMatchObject({ code: 0 });
    expect(await second.code).toBe(0);
    expect(second.stderr()).toContain('Restoring application from generation 1');
    checkLines(first.stdout() + second.stdout());
  });

  test('the application gets nothing of ours, and its PATH as it was', async () => {
    const words = [COMMANDS.user, 'run', '-i', '/tmp/environment', '--', 'env'];
    const { code, stdout } = await container.exec(words, { ...BARE, OTHER: 'a b' });
    expect(code).toBe(0);
    const tmp = 'TMPDIR=/var/tmp/fastfreeze/tmp';
    const variables = ['FASTFREEZE=1', 'OTHER=a b', `PATH=${BARE.PATH}`, tmp, 'UV_USE_IO_URING=0'];
    expect(
      stdout
        .trim()
        .split('\n')
        .filter((line) => !/^(?:PWD|OLDPWD|_)=/.test(line))
        .sort(),
    ).toEqual(variables);
  });

  test('`install` finds that there is one; a folder that the loader cannot name is refused', async () => {
    const answer = await container.exec([COMMANDS.root, 'install', '--json'], BARE);
    expect(JSON.parse(answer.stdout)).toMatchObject({ action: 'found', runtime: { source: 'package' } });
    const refused = await container.exec([`${UNUSABLE}/bin/fastfreeze`, 'doctor'], BARE);
    expect(refused).toMatchObject({ code: 170, stdout: '' });
    expect(refused.stderr).toMatch(/^Error: cannot start from \/opt\/with:colon: .*\nTry: .*\n$/);
  });

  test('the SDKs of the clouds are there, as far as they get without a network', async () => {
    const env = {
      ...BARE,
      HOME: '/',
      AWS_ACCESS_KEY_ID: 'a',
      AWS_SECRET_ACCESS_KEY: 'b',
      AWS_REGION: 'us-east-1',
      FF_STORE_RETRY_S: '0',
    };
    for (const url of ['s3://bucket/path', 'gs://bucket/path']) {
      const { code, stderr } = await container.exec([COMMANDS.user, 'list', url], env, 'user');
      expect(code).toBe(170);
      expect(stderr).toMatch(/^Error: cannot list [sg]/);
      expect(stderr).not.toMatch(/module|internal/i);
    }
  });
}

interface Modules {
  /** How many names were looked for. */
  readonly checked: number;
  readonly missing: readonly string[];
}

/** What `require` and `import` below node_modules name and is not there. */
function namedModules(root: string): Modules {
  const words = ['--no-warnings', '--experimental-import-meta-resolve', fixture('unresolved-modules.mjs'), root];
  return JSON.parse(execFileSync(nodePath(), words, { encoding: 'utf8', env: {} })) as Modules;
}
