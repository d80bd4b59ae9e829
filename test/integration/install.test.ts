// SPDX-License-Identifier: Apache-2.0
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Bed, Identity } from '../support/bed.js';
import { USER_ID, withBed } from '../support/bed.js';
import type { Answer } from '../support/place.js';
import { ended } from '../support/place.js';
import { fastfreeze, nodePath, scratchDir } from '../support/stage.js';
import { until } from '../support/until.js';

const TIMEOUT_MS = 110_000;
/** A CRIU that was chosen by hand for the other tests must not answer here. */
const ENV = { FF_CRIU: '' };

interface Result {
  readonly ok: boolean;
  readonly action: string;
  readonly runtime: { readonly command: string[]; readonly version: string; readonly libraryDir: string };
  readonly packages: { readonly packages: { readonly name: string }[] };
  readonly bundle: { readonly path: string; readonly sha256: string };
}

async function install(bed: Bed, ...args: string[]): Promise<Answer> {
  const place = await bed.place();
  return await place.fastfreeze(['install', ...args], { env: ENV });
}

function resultOf(answer: Answer): Result {
  if (answer.code !== 0) throw new Error(`exit code ${answer.code}: ${answer.stderr}${answer.stdout}`);
  return JSON.parse(answer.stdout) as Result;
}

/** Both identities share what was fetched once; a mirror is not ours to load. */
let shared = '';
let bundle = '';
let sum = '';
beforeAll(() => {
  shared = mkdtempSync(join(scratchDir(), 'install-'));
  chmodSync(shared, 0o755);
  bundle = join(shared, 'bundle.tar.gz');
});
afterAll(() => rmSync(shared, { recursive: true, force: true }));

describe.each<Identity>(['root', 'user'])('install as %s', (identity) => {
  const home = (): string => join(shared, identity);

  it(
    'makes a private CRIU of Debian packages once, and touches nothing of the system',
    async () => {
      mkdirSync(home());
      if (identity === 'user') chownSync(home(), USER_ID, USER_ID);
      const before = systemState();
      await withBed(identity, async (bed) => {
        const first = resultOf(await install(bed, '--dir', home(), '--json'));
        expect(first).toMatchObject({ ok: true, action: 'installed' });
        const names = first.packages.packages.map((one) => one.name);
        expect(names).toEqual(expect.arrayContaining(['criu', 'libc6', 'liblz4-1', 'libzstd1', 'libxxhash0']));
        for (const library of ['liblz4.so.1', 'libzstd.so.1', 'libxxhash.so.0']) {
          expect(existsSync(join(first.runtime.libraryDir, library))).toBe(true);
        }
        const root = join(home(), 'current/root');
        for (const name of names) expect(existsSync(join(root, 'usr/share/doc', name, 'copyright'))).toBe(true);
        expect(readFileSync(join(root, 'LICENSES'), 'utf8')).toContain('criu ');

        const second = resultOf(await install(bed, '--dir', home(), '--json'));
        expect(second).toMatchObject({ ok: true, action: 'already-installed', runtime: first.runtime });
        expect(readdirSync(home()).sort()).toEqual(['current', readlinkSync(join(home(), 'current'))]);
      });
      expect(systemState()).toEqual(before);
    },
    TIMEOUT_MS,
  );

  it(
    'packs it into the same bundle whoever installed it',
    async () => {
      await withBed(identity, async (bed) => {
        const file = bed.path('work/bundle.tar.gz');
        const made = resultOf(await install(bed, '--dir', home(), '--bundle', file, '--json'));
        if (identity === 'root') {
          sum = made.bundle.sha256;
          writeFileSync(bundle, readFileSync(file), { mode: 0o644 });
        }
        expect(made.bundle.sha256).toBe(sum);
        expect(readFileSync(`${file}.sha256`, 'utf8')).toBe(`${sum}  bundle.tar.gz\n`);
      });
    },
    TIMEOUT_MS,
  );

  it(
    'installs a bundle whose sum is right, and nothing of one whose sum is not',
    async () => {
      await withBed(identity, async (bed) => {
        const target = bed.path('work/from');
        const noSum = await install(bed, '--dir', target, '--from', bundle);
        expect(noSum).toMatchObject({ code: 2 });
        expect(noSum.stderr).toContain('--from needs --sha256');
        const wrong = await install(bed, '--dir', target, '--from', bundle, '--sha256', '0'.repeat(64));
        expect(wrong).toMatchObject({ code: 170 });
        expect(wrong.stderr).toContain('its SHA-256 is');
        const short = bed.write('work/short.tar.gz', readFileSync(bundle).subarray(0, -1000));
        const cut = await install(bed, '--dir', target, '--from', short, '--sha256', sum, '--json');
        expect(cut).toMatchObject({ code: 170 });
        expect(JSON.parse(cut.stdout)).toMatchObject({ ok: false, error: { code: 'image' } });
        expect(readdirSync(target)).toEqual([]);

        const right = resultOf(await install(bed, '--dir', target, '--from', bundle, '--sha256', sum, '--json'));
        expect(right).toMatchObject({ ok: true, action: 'installed', runtime: { source: 'installed' } });
        const again = resultOf(await install(bed, '--dir', target, '--from', bundle, '--sha256', sum, '--json'));
        expect(again).toMatchObject({ action: 'already-installed', runtime: right.runtime });
        const before = statSync(join(target, 'current')).ino;
        const anew = await install(bed, '--dir', target, '--from', bundle, '--sha256', sum, '--force', '--json');
        expect(resultOf(anew)).toMatchObject({ action: 'installed' });
        expect(statSync(join(target, 'current')).ino).not.toBe(before);
        // A job may be running from the old one, which stays.
        expect(readdirSync(target)).toHaveLength(3);
      });
    },
    TIMEOUT_MS,
  );

  it(
    'replaces a runtime that was half deleted',
    async () => {
      await withBed(identity, async (bed) => {
        const target = bed.path('work/from');
        const words = ['--dir', target, '--from', bundle, '--sha256', sum, '--json'];
        const first = resultOf(await install(bed, ...words, '-v'));
        rmSync(join(first.runtime.libraryDir, 'libzstd.so.1'));
        const second = resultOf(await install(bed, ...words));
        expect(second.action).toBe('installed');
        expect(existsSync(join(second.runtime.libraryDir, 'libzstd.so.1'))).toBe(true);
      });
    },
    TIMEOUT_MS,
  );
});

describe('install', () => {
  it(
    'run twice at once from the mirror gives one whole runtime',
    async () => {
      await withBed('user', async (bed) => {
        const target = bed.path('work/twice');
        const both = await Promise.all([1, 2].map(async () => await install(bed, '--dir', target, '--json')));
        const results = both.map(resultOf);
        expect(results[0]?.runtime).toEqual(results[1]?.runtime);
        expect(results.map((one) => one.action)).toContain('installed');
        expect(readdirSync(target).sort()).toEqual(['current', readlinkSync(join(target, 'current'))]);
      });
    },
    TIMEOUT_MS,
  );

  it(
    'is found by the others once it is there',
    async () => {
      await withBed('user', async (bed) => {
        const place = await bed.place();
        const env = { ...ENV, FF_HOME: join(shared, 'user') };
        const answer = await place.fastfreeze(['install', '--json', '--verbose'], { env });
        expect(['found', 'already-installed']).toContain(resultOf(answer).action);
        expect(answer.stderr).toMatch(/^\[ff\.install\] \+ \S.*criu.*--version$/m);
      });
    },
    TIMEOUT_MS,
  );

  it.each(['SIGTERM', 'SIGKILL'] as const)(
    'ended by %s in the middle leaves nothing that looks installed',
    async (signal) => {
      await withBed('user', async (bed) => {
        const target = bed.path('work/interrupted');
        const place = await bed.place();
        const child = place.start([...fastfreeze(), 'install', '--dir', target], { env: ENV });
        let said = '';
        child.stderr?.on('data', (data: Buffer) => (said += data.toString()));
        const over = ended(child, 'install', () => said);
        await until(
          'the install to begin',
          () => said.includes('package lists'),
          10_000,
          () => said,
        );
        child.kill(signal);
        expect(await over).toBe(signal === 'SIGTERM' ? 130 : 137);
        const left = readdirSync(target);
        expect(left.filter((name) => !name.startsWith('.building-'))).toEqual([]);
        if (signal === 'SIGTERM') expect(left).toEqual([]);
        const next = resultOf(await install(bed, '--dir', target, '--from', bundle, '--sha256', sum, '--json'));
        expect(next.action).toBe('installed');
      });
    },
    TIMEOUT_MS,
  );

  it(
    'says what to do where the disk is full, the mirror is away or the folder is not ours',
    async () => {
      await withBed('root', async (bed) => {
        const full = await install(bed, '--dir', bed.tmpfs('small', 20 * 1024 * 1024));
        expect(full).toMatchObject({ code: 170 });
        expect(full.stderr).toMatch(/the disk is full.*\nTry: free 150 MB/);
        expect(bed.list('small')).toEqual([]);
        const away = await install(bed, '--dir', bed.path('work/away'), '--mirror', 'http://127.0.0.1:9/debian');
        expect(away).toMatchObject({ code: 170 });
        expect(away.stderr).toMatch(/the package mirror cannot be reached.*\nTry: check the network/);
      });
      await withBed('user', async (bed) => {
        const foreign = await install(bed, '--dir', join(shared, 'root/new'));
        expect(foreign).toMatchObject({ code: 170 });
        expect(foreign.stderr).toMatch(/permission denied.*\nTry: name a folder of yours/);
      });
    },
    TIMEOUT_MS,
  );

  it(
    'that cannot be checked here is refused, except with --no-check',
    async () => {
      await withBed('user', async (bed) => {
        const target = bed.path('work/unchecked');
        // As in the build of a container image, no container can be made.
        const tools = bed.directory('work/tools');
        for (const name of ['tar', 'sync', 'sh', 'readlink']) symlinkSync(`/bin/${name}`, join(tools, name));
        symlinkSync(nodePath(), join(tools, 'node'));
        const place = await bed.place();
        const words = ['install', '--dir', target, '--from', bundle, '--sha256', sum];
        const refused = await place.fastfreeze(words, { env: { ...ENV, PATH: tools } });
        expect(refused).toMatchObject({ code: 170 });
        expect(refused.stderr).toContain('--no-check');
        expect(readdirSync(target)).toEqual([]);
        const taken = await place.fastfreeze([...words, '--no-check'], { env: { ...ENV, PATH: tools } });
        expect(taken).toMatchObject({ code: 0 });
        expect(taken.stderr).toContain('Warning: ');
        expect(existsSync(join(target, 'current/root/usr/sbin/criu'))).toBe(true);
      });
    },
    TIMEOUT_MS,
  );
});

/** What apt and dpkg keep about the machine; an install changes none of it. */
function systemState(): Record<string, number> {
  const paths = ['/var/lib/dpkg/status', '/var/lib/apt/lists', '/var/cache/apt', '/var/cache/apt/archives', '/etc/apt'];
  return Object.fromEntries(paths.filter(existsSync).map((path) => [path, statSync(path).mtimeMs]));
}
