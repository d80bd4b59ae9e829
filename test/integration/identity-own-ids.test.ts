// SPDX-License-Identifier: Apache-2.0
// A normal user with subordinate ids keeps its own uid and gid in the container. The entries are seen at the test's places only.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { USER_ID, withBed, type Bed } from '../support/bed.js';
import type { Job } from '../support/job.js';
import { imageHashes } from '../support/image.js';
import { checkLines } from '../support/lines.js';
import type { Place } from '../support/place.js';
import { PYTHON, fixture } from '../support/stage.js';

/** newuidmap asks for the caller's entry in the user database. */
const PASSWD = `${readFileSync('/etc/passwd', 'utf8')}ff-user:x:${USER_ID}:${USER_ID}::/nonexistent:/bin/sh\n`;

/** A machine where the user has subordinate ids, from `first` on. */
const withIds = (first = 3_000_000): Readonly<Record<string, string>> => ({
  '/etc/passwd': PASSWD,
  '/etc/subuid': `other:100000:65536\n${USER_ID}:${first}:65536\n`,
  '/etc/subgid': `other:100000:65536\nff-user:${first + 100_000}:65536\n`,
});
/** newuidmap refuses: it does not know the user. */
const BROKEN = { ...withIds(), '/etc/passwd': '', '/etc/subgid': `${USER_ID}:3100000:65536\n` };
const WITHOUT = { '/etc/subuid': 'other:100000:65536\n' };

const image = (bed: Bed): string[] => ['--image-url', `file:${bed.path('image')}`];
const say = (bed: Bed, place: Place, script: string, more: readonly string[] = []): Job =>
  bed.run(place, [...image(bed), ...more], ['sh', '-c', script]);

/** An image of a job that prints its uid when it goes on. */
async function freeze(bed: Bed, files: Readonly<Record<string, string>>): Promise<void> {
  const place = await bed.place({ files });
  const job = say(bed, place, 'echo begin; while [ ! -e go ]; do sleep 0.05; done; id -u; id -g');
  await job.prints(/begin/);
  await job.freeze();
  bed.write('work/go', '');
}

test('its own uid and gid over three generations, with other subordinate ids each time', async () => {
  await withBed('user', async (bed) => {
    bed.directory('tree');
    writeFileSync(bed.path('tree', 'file'), 'content');
    const pack = ['-C', bed.dir, '--owner=12345', '--group=12345', '-cf', bed.path('archive.tar'), 'tree'];
    expect(spawnSync('tar', pack).status).toBe(0);
    bed.give(bed.path('archive.tar'));
    const words = [
      'own-ids.py',
      bed.path('stop'),
      String(USER_ID),
      bed.path('archive.tar'),
      fixture('refuses-root.sh'),
    ];
    const command = [PYTHON, fixture(words[0] ?? ''), ...words.slice(1)];
    let output = '';
    for (let generation = 0; generation <= 3; generation += 1) {
      const place = await bed.place({ files: withIds(3_000_000 + 10 * generation), clockOffsetS: 1000 * generation });
      const options = [...image(bed), '--error', bed.path('work', 'errors')];
      const job = bed.run(place, options, command);
      await job.ready(generation === 0 ? 'scratch' : 'restored');
      await job.progresses(3);
      if (generation < 3) await job.freeze();
      else writeFileSync(bed.path('stop'), '');
      if (generation === 3) expect(await job.ends()).toMatchObject({ code: 0 });
      output += job.stdout;
    }
    checkLines(output);
    expect(readFileSync(bed.path('work', 'errors'), 'utf8')).toBe('');
    for (const folder of ['image', 'work']) {
      for (const name of readdirSync(bed.path(folder))) {
        expect([name, statSync(bed.path(folder, name)).uid]).toEqual([name, USER_ID]);
      }
    }
  });
}, 120_000);

test('is no root of its namespace: no mounts, no look at the supervisor, no capability by way of the hook', async () => {
  await withBed('user', async (bed) => {
    const script = `
      unshare --mount true 2>/dev/null && echo may-mount
      cat /proc/1/environ >/dev/null 2>&1 && echo may-look
      setpriv --reuid=0 true 2>/dev/null && echo may-be-root
      kill -KILL 1
      while [ ! -e hooked ]; do sleep 0.05; done
      grep -E "Cap(Inh|Prm|Eff|Amb)" hooked | grep '[1-9a-f]$'
      echo end`;
    const hook = 'cat /proc/self/status > hooked.new; mv hooked.new hooked';
    const job = say(bed, await bed.place({ files: withIds() }), script, ['--on-app-ready', hook]);
    expect(await job.ends()).toMatchObject({ code: 0 });
    expect(job.stdout).toBe('end\n');
    expect(statSync(bed.path('work', 'hooked')).uid).toBe(USER_ID);
  });
}, 60_000);

test('an image of uid 0 is restored as uid 0, also where there are subordinate ids now', async () => {
  await withBed('user', async (bed) => {
    await freeze(bed, WITHOUT);
    const job = say(bed, await bed.place({ files: withIds() }), 'not this');
    expect(await job.ends()).toMatchObject({ code: 0 });
    expect(job.stdout).toBe('0\n0\n');
  });
}, 60_000);

test('subordinate ids that do not work: a warning, and uid 0', async () => {
  await withBed('user', async (bed) => {
    const job = say(bed, await bed.place({ files: BROKEN }), 'id -u');
    expect(await job.ends()).toMatchObject({ code: 0 });
    expect(job.stdout).toBe('0\n');
    expect(job.stderr).toMatch(/Warning: the application sees uid 0: .*newuidmap: Cannot determine your user name/);
  });
}, 60_000);

describe('an image with own ids is refused with 171, before anything starts,', () => {
  const refusals: readonly [string, Readonly<Record<string, string>>, readonly string[], RegExp][] = [
    [
      'without subordinate ids',
      WITHOUT,
      [],
      /no subordinate ids in \/etc\/subuid\s+Try: as root: usermod --add-subuids/,
    ],
    ['without newuidmap', { ...withIds(), '/usr/bin/newuidmap': '' }, [], /not installed\s+Try: install .*uidmap/],
    ['where they do not work', BROKEN, [], /newuidmap: Cannot determine your user name/],
    ['as another user', withIds(), ['unshare', '--map-user=5', '--map-group=5'], /uid 5, gid 5\s+Try: run as the user/],
  ];
  test.each(refusals)(
    '%s',
    async (_, files, within, message) => {
      await withBed('user', async (bed) => {
        await freeze(bed, withIds());
        const before = imageHashes(bed.path('image'));
        const job = bed.run(await bed.place({ files }), image(bed), ['sh', '-c', 'echo started'], { within });
        expect(await job.ends()).toMatchObject({ code: 171 });
        expect(job.stdout).toBe('');
        expect(job.stderr).toMatch(message);
        expect(job.stderr).toContain(`as uid ${USER_ID}, gid ${USER_ID}: `);
        expect(bed.list('logs')).toEqual([]);
        expect(imageHashes(bed.path('image'))).toEqual(before);
        // It is none the worse for it.
        const again = bed.run(await bed.place({ files: withIds() }), image(bed), []);
        expect(await again.ends()).toMatchObject({ code: 0 });
        expect(again.stdout).toBe(`${USER_ID}\n${USER_ID}\n`);
      });
    },
    90_000,
  );
});
