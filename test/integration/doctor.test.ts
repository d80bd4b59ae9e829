// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from '@jest/globals';
import { chmodSync, copyFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import type { Bed, Identity } from '../support/bed.js';
import { withBed } from '../support/bed.js';
import { libraryPath } from '../support/libraries.js';
import type { Answer } from '../support/place.js';
import { ended } from '../support/place.js';
import { fastfreeze } from '../support/stage.js';
import { until } from '../support/until.js';

const TIMEOUT_MS = 60_000;

interface Report {
  readonly ok: boolean;
  readonly rows: {
    readonly name: string;
    readonly status: string;
    readonly detail: string;
    readonly remedy?: string;
  }[];
}

const ROWS = [
  'kernel',
  'util-linux',
  'user-namespaces',
  'namespaces',
  'pid-control',
  'clocks',
  'ptrace',
  'seccomp',
  'pipes',
  'memory',
  'cpu',
  'state-directory',
  'criu',
  'codecs',
  'canary',
];

async function doctor(bed: Bed, env: Record<string, string>, ...args: string[]): Promise<Answer> {
  const place = await bed.place();
  return await place.fastfreeze(['doctor', ...args], { env });
}

function reportOf(answer: Answer): Report {
  if (!answer.stdout.startsWith('{')) throw new Error(`exit code ${answer.code}: ${answer.stderr}${answer.stdout}`);
  return JSON.parse(answer.stdout) as Report;
}

/** A CRIU that seems to work and then does `atDump`. */
function pretender(bed: Bed, atDump: string): string {
  const script = `#!/bin/sh
case $1 in
--version) echo 'Version: 4.2.1' ;;
dump) ${atDump} ;;
esac
`;
  const path = bed.write('work/pretender', script);
  chmodSync(path, 0o755);
  return path;
}

describe.each<Identity>(['root', 'user'])('doctor as %s', (identity) => {
  it(
    'freezes and thaws a canary, and leaves nothing',
    async () => {
      await withBed(identity, async (bed) => {
        const answer = await doctor(bed, {}, '--json');
        const report = reportOf(answer);
        expect(report.rows.filter((row) => row.status === 'fail')).toEqual([]);
        expect(report.rows.map((row) => row.name)).toEqual(ROWS);
        expect(report.rows.at(-1)).toMatchObject({ name: 'canary', status: 'ok' });
        expect(report.ok).toBe(true);
        expect(answer.code).toBe(0);
      });
    },
    TIMEOUT_MS,
  );

  it(
    'prints a row per line for people, with a remedy below what fails',
    async () => {
      await withBed(identity, async (bed) => {
        const answer = await doctor(bed, { FF_CRIU: '/nonexistent/criu' });
        expect(answer.code).toBe(170);
        expect(answer.stdout).toMatch(/^fail {2}criu +.*\/nonexistent\/criu.*\n +Try: unset FF_CRIU/m);
        expect(answer.stdout).toMatch(/^fail {2}canary +not tried/m);
        expect(answer.stdout).toContain('Jobs cannot be frozen here');
      });
    },
    TIMEOUT_MS,
  );

  it(
    'is not taken in by a CRIU that only seems to work',
    async () => {
      await withBed(identity, async (bed) => {
        const answer = await doctor(bed, { FF_CRIU: pretender(bed, 'exit 1') }, '--json');
        const report = reportOf(answer);
        expect(answer.code).toBe(170);
        expect(report.ok).toBe(false);
        const bad = report.rows.filter((row) => row.status === 'fail');
        expect(bad.map((row) => row.name)).toEqual(['canary']);
        expect(bad[0]?.detail).toContain('could not be frozen');
        expect(bad[0]?.remedy).toBeDefined();
      });
    },
    TIMEOUT_MS,
  );

  it(
    'interrupted in the middle of the canary leaves nothing',
    async () => {
      await withBed(identity, async (bed) => {
        const place = await bed.place();
        const started = bed.path('work/started');
        const env = { FF_CRIU: pretender(bed, `echo x >${started}; sleep 60`) };
        const child = place.start([...fastfreeze(), 'doctor'], { env });
        const over = ended(child, 'doctor', () => '');
        await until('the dump', () => bed.list('work').includes('started'), 20_000);
        child.kill('SIGTERM');
        expect(await over).toBe(130);
      });
    },
    TIMEOUT_MS,
  );
});

describe('doctor', () => {
  it(
    'refuses options that it does not know',
    async () => {
      await withBed('user', async (bed) => {
        const answer = await doctor(bed, {}, '--fix');
        expect(answer).toMatchObject({ code: 2 });
        expect(answer.stderr).toContain('--fix');
      });
    },
    TIMEOUT_MS,
  );
});

describe('where the system lacks a compression library', () => {
  it(
    'the one of the runtime in FF_HOME is used, and missed only where there is none',
    async () => {
      await withBed('user', async (bed) => {
        const library = libraryPath('libxxhash.so.0');
        const below = 'current/root/usr/lib/x86_64-linux-gnu';
        const folder = bed.directory('home', below);
        copyFileSync(library, join(folder, 'libxxhash.so.0'));
        // An empty file is no library; nobody outside of the place sees it.
        const place = await bed.place({ files: { [realpathSync(library)]: '' } });
        const codecs = async (home: string): Promise<unknown> => {
          const answer = await place.fastfreeze(['doctor', '--json'], {
            env: { FF_HOME: home, FF_CRIU: '/bin/false' },
          });
          return reportOf(answer).rows.find((row) => row.name === 'codecs');
        };
        expect(await codecs(bed.path('home'))).toEqual({
          ...{ name: 'codecs', status: 'ok', detail: `lz4, zstd and xxHash from the system and ${folder}` },
        });
        expect(await codecs(bed.path('nothing'))).toMatchObject({
          ...{ status: 'warn', remedy: 'fastfreeze install --force' },
          detail: expect.stringMatching(/^libxxhash\.so\.0 cannot be loaded/) as unknown,
        });
      });
    },
    TIMEOUT_MS,
  );
});
