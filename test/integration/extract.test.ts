// SPDX-License-Identifier: Apache-2.0
// An extracted image is CRIU's own: its magic numbers are right and plain `criu restore` takes it.
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { withBed } from '../support/bed.js';
import { critDecode } from '../support/crit.js';
import { criuCommand } from '../support/criu.js';
import { imageHashes } from '../support/image.js';
import { fixture, PYTHON } from '../support/stage.js';
import { until } from '../support/until.js';

/** CRIU's image files begin with the common magic and one of their own, or (inventory and statistics) with one alone. */
const IMG_COMMON_MAGIC = 0x54564319;
const INVENTORY_MAGIC = 0x58313116;

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    test('extract writes what plain criu restore accepts', async () => {
      await withBed(identity, async (bed) => {
        const image = bed.path('image');
        const out = bed.path('extracted');
        const stopFile = bed.path('stop');
        // Output to a file of its own: there is nobody at the other end of our pipes when CRIU restores by hand.
        const script = `exec >${bed.path('work', 'log')} 2>&1 </dev/null; exec ${PYTHON} ${fixture('memory.py')} ${stopFile} 8`;
        const place = await bed.place();
        const job = bed.run(place, ['--image-url', `file:${image}`], ['sh', '-c', script]);
        await job.ready();
        await until(
          'its output',
          () =>
            existsSync(bed.path('work', 'log')) && readFileSync(bed.path('work', 'log'), 'utf8').includes('verified'),
        );
        await job.freeze();
        const before = imageHashes(image);
        expect(await place.fastfreeze(['extract', '--image-url', `file:${image}`, '-o', out])).toMatchObject({
          code: 0,
          stdout: '',
        });
        expect(imageHashes(image)).toEqual(before);

        const names = readdirSync(out);
        for (const wanted of ['inventory.img', 'pstree.img', 'files.img']) expect(names).toContain(wanted);
        expect(names.some((name) => /^core-\d+\.img$/.test(name))).toBe(true);
        for (const name of names.filter((one) => one.endsWith('.img') && !one.startsWith('pages-'))) {
          const bytes = readFileSync(join(out, name));
          expect([name, IMG_COMMON_MAGIC, INVENTORY_MAGIC]).toContain(bytes.readUInt32LE(0));
        }
        // CRIU's own tool reads them, and finds the application in them.
        const pstree = critDecode(join(out, 'pstree.img'));
        expect(pstree).toMatchObject({ magic: 'PSTREE', entries: [{ pid: 1000 }] });
        expect(critDecode(join(out, 'core-1000.img')).entries[0]).toMatchObject({ tc: { comm: 'python3' } });
        for (const name of ['inventory.img', 'mm-1000.img', 'files.img', 'fdinfo-2.img', 'pagemap-1000.img']) {
          expect([name, critDecode(join(out, name)).entries.length > 0]).toEqual([name, true]);
        }
        expect(
          statSync(join(out, names.find((name) => name.startsWith('pages-')) ?? 'pages-1.img')).size,
        ).toBeGreaterThan(8 << 20);

        // Restored by hand, in a container made by hand. `out` also holds its log.
        const lines = readFileSync(bed.path('work', 'log'), 'utf8').split('\n').length;
        const user = identity === 'user';
        const container = [
          'unshare',
          ...(user ? ['--user', '--map-root-user'] : []),
          '--pid',
          '--fork',
          '--mount',
          '--mount-proc',
          '--kill-child',
        ];
        const criu = [
          ...(await criuCommand()),
          'restore',
          ...(user ? ['--unprivileged'] : []),
          '-D',
          out,
          '-o',
          'restore.log',
          '-v4',
          // As it was dumped: connections do not come back.
          '--tcp-close',
        ];
        const child = place.start([...container, ...criu]);
        try {
          await until(
            'the restored program to go on',
            () => readFileSync(bed.path('work', 'log'), 'utf8').split('\n').length > lines + 3,
            30_000,
            () =>
              existsSync(join(out, 'restore.log'))
                ? readFileSync(join(out, 'restore.log'), 'utf8').split('\n').slice(-15).join('\n')
                : '',
          );
          writeFileSync(stopFile, '');
          await until('its end', () => / done\n$/.test(readFileSync(bed.path('work', 'log'), 'utf8')));
        } finally {
          child.kill('SIGKILL');
        }
        expect(readFileSync(bed.path('work', 'log'), 'utf8')).not.toMatch(/VIOLATION/);
      });
    }, 120_000);

    test('extract of what is no image fails and says so', async () => {
      await withBed(identity, async (bed) => {
        const place = await bed.place();
        const answer = await place.fastfreeze(['extract', `file:${bed.path('nothing')}`, '-o', bed.path('out')]);
        expect(answer.code).not.toBe(0);
        expect(answer.stderr).toMatch(/^Error: .+/m);
      });
    }, 60_000);
  });
}
