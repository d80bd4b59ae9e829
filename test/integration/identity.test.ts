// SPDX-License-Identifier: Apache-2.0
// Who the application is: root's is root; a normal user's sees uid 0 in its user namespace unless subordinate ids allow its own.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { USER_ID, withBed } from '../support/bed.js';
import { fixture } from '../support/stage.js';

const hasOwnIds = (): boolean => {
  try {
    return readFileSync('/etc/subuid', 'utf8')
      .split('\n')
      .some((line) => line.startsWith(`${USER_ID}:`));
  } catch {
    return false;
  }
};

describe('as a normal user', () => {
  test('id: uid 0 inside (without subordinate ids), files belong to the user outside', async () => {
    await withBed('user', async (bed) => {
      const job = bed.run(
        await bed.place(),
        ['--image-url', `file:${bed.path('image')}`],
        ['sh', '-c', 'id -u; id -g; touch made'],
      );
      expect(await job.ends()).toMatchObject({ code: 0 });
      expect(job.stdout).toBe(hasOwnIds() ? `${USER_ID}\n${USER_ID}\n` : '0\n0\n');
      expect(statSync(bed.path('work', 'made')).uid).toBe(USER_ID);
    });
  }, 60_000);

  test('tar xf of an archive with foreign owners works as it does outside', async () => {
    await withBed('user', async (bed) => {
      mkdirSync(bed.path('tree'));
      writeFileSync(bed.path('tree', 'file'), 'content');
      const made = spawnSync('tar', [
        '-C',
        bed.dir,
        '--owner=12345',
        '--group=12345',
        '-cf',
        bed.path('archive.tar'),
        'tree',
      ]);
      expect(made.status).toBe(0);
      bed.give(bed.path('archive.tar'));
      const job = bed.run(
        await bed.place(),
        ['--image-url', `file:${bed.path('image')}`],
        ['tar', 'xf', bed.path('archive.tar')],
      );
      const end = await job.ends();
      expect({ code: end.code, stderr: job.stderr }).toMatchObject({ code: 0 });
      expect(readFileSync(bed.path('work', 'tree', 'file'), 'utf8')).toBe('content');
    });
  }, 60_000);

  test('a program that refuses root says so itself, with its own exit code', async () => {
    await withBed('user', async (bed) => {
      const job = bed.run(
        await bed.place(),
        ['--image-url', `file:${bed.path('image')}`],
        ['sh', fixture('refuses-root.sh')],
      );
      const end = await job.ends();
      if (hasOwnIds()) expect(job.stdout).toBe(`running as ${USER_ID}\n`);
      else
        expect({ code: end.code, stderr: job.stderr }).toMatchObject({
          code: 1,
          stderr: expect.stringContaining('will not run as root'),
        });
    });
  }, 60_000);

  test('no capability and no write access outside: the application is confined as the user is', async () => {
    await withBed('user', async (bed) => {
      const script =
        'cat /etc/shadow >/dev/null 2>&1 && echo read-shadow; touch /etc/ff-test 2>/dev/null && echo wrote-etc; echo end';
      const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], ['sh', '-c', script]);
      expect(await job.ends()).toMatchObject({ code: 0 });
      expect(job.stdout).toBe('end\n');
    });
  }, 60_000);
});

describe('as root', () => {
  test('id: root is root', async () => {
    await withBed('root', async (bed) => {
      const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], ['id', '-u']);
      expect(await job.ends()).toMatchObject({ code: 0 });
      expect(job.stdout).toBe('0\n');
    });
  }, 60_000);
});
