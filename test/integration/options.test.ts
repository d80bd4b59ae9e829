// SPDX-License-Identifier: Apache-2.0
// Options and variables that no other test is about, each with what it changes.
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, readFileSync, readdirSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { USER_ID, withBed, type Bed } from '../support/bed.js';
import { generations } from '../support/image.js';
import { libraryPath } from '../support/libraries.js';
import { checkLines } from '../support/lines.js';
import { descendantsOf, inspect } from '../support/processes.js';
import { PYTHON, fixture, nodePath } from '../support/stage.js';

const loop = (bed: Bed): string[] => ['sh', fixture('shell-loop.sh'), bed.path('stop')];
const url = (bed: Bed): string[] => ['--image-url', `file:${bed.path('image')}`];

describe('an image of two generations', () => {
  test('--generation chooses the older one for inspect, verify, cp and extract; -v says more', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const job = bed.run(place, url(bed), loop(bed));
      await job.progresses(2);
      const said = await job.commits(['--leave-running', '--verbose']);
      expect(said.stderr).toMatch(/\[ff\.checkpoint\] .*shard 1: \d+\.\d MiB in \d+\.\d+ s \(\d+\.\d MiB\/s\)\n/);
      expect((await place.fastfreeze(['wait', '--timeout', '30', '--verbose'])).stderr).toMatch(
        /image is (running|checkpointing)\n.*image is running\n$/,
      );
      await job.progresses(2);
      const frozen = JSON.parse((await job.freeze(['--json', '-n', 'image', '-v'])).stdout) as {
        shards: unknown[];
        rawBytes: number;
      };
      expect(frozen).toMatchObject({ generation: 2, leftRunning: false, encrypted: false });
      expect(frozen.shards.length).toBeGreaterThan(0);
      expect(frozen.rawBytes).toBeGreaterThan(4096);
      expect(generations(bed.path('image'))).toEqual([1, 2]);
      const image = `file:${bed.path('image')}`;

      const inspected = await place.fastfreeze(['inspect', image, '--generation', '1', '--json']);
      expect(JSON.parse(inspected.stdout)).toMatchObject({ generation: 1 });
      const verified = await place.fastfreeze(['verify', image, '--generation', '1', '--json']);
      expect(verified.stdout).toMatch(/"generation": ?1\b/);
      expect(verified.stdout).not.toMatch(/"generation": ?2\b/);
      expect(await place.fastfreeze(['cp', image, `file:${bed.path('copy')}`, '--generation', '1'])).toMatchObject({
        code: 0,
      });
      expect(generations(bed.path('copy'))).toEqual([1]);

      const out = bed.path('out');
      const extracted = await place.fastfreeze([
        'extract',
        image,
        '--generation',
        '1',
        '--output-dir',
        out,
        '--verbose',
      ]);
      expect(extracted).toMatchObject({ code: 0 });
      const names = readdirSync(out);
      expect(names).toContain('inventory.img');
      for (const name of names) expect(extracted.stderr).toContain(`${name}: `);
      // By itself it takes the URL's last name, here.
      const byItself = await place.fastfreeze(['extract', image, '--generation', '1', '-v']);
      expect(byItself).toMatchObject({
        code: 0,
        stderr: expect.stringContaining(`in ${bed.path('work', 'image')}\n`) as unknown,
      });
      expect(readdirSync(bed.path('work', 'image'))).toEqual(names);
      for (const command of ['inspect', 'verify', 'extract']) {
        const none = await place.fastfreeze([command, image, '--generation', '9']);
        expect(none.code).not.toBe(0);
        expect(none.stderr).toMatch(/^Error: .*9.*/);
      }
    });
  }, 60_000);

  test('extract --allow-bad-image-version tries what it refuses otherwise', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const job = bed.run(place, url(bed), loop(bed));
      await job.progresses(2);
      await job.freeze();
      const name = bed.list('image').find((one) => one.startsWith('manifest-')) ?? '';
      const path = bed.path('image', name);
      const text = readFileSync(path, 'utf8').replace(/"formatVersion": \d+/, '"formatVersion": 99');
      const signed = text.slice(0, text.lastIndexOf(',\n  "checksum"'));
      const checksum = createHash('sha256').update(signed).digest('hex');
      writeFileSync(path, `${signed},\n  "checksum": "${checksum}"\n}\n`);
      const words = ['extract', `file:${bed.path('image')}`, '--output-dir', bed.path('out')];
      const refused = await place.fastfreeze(words);
      expect(refused.code).toBe(170);
      expect(refused.stderr).toMatch(/format version 99/);
      expect(bed.list('out')).toEqual([]);
      expect(await place.fastfreeze([...words, '--allow-bad-image-version'])).toMatchObject({ code: 0 });
      expect(bed.list('out')).toContain('inventory.img');
    });
  }, 60_000);
});

describe('variables', () => {
  test('CRIU_OPTS reaches CRIU, at the dump and at the restore', async () => {
    await withBed('root', async (bed) => {
      // It takes along what a deleted file has, up to that.
      const ghost = ['sh', '-c', 'echo much >gone; exec 3<gone; rm gone; exec "$@"', 'sh', ...loop(bed)];
      const own = { CRIU_OPTS: '--ghost-limit 1', FF_LOG_DIR: bed.path('work', 'own') };
      const first = bed.run(await bed.place(), url(bed), ghost, { env: own });
      await first.progresses(2);
      const refused = await first.checkpoint();
      expect(refused.code).toBe(170);
      // Where FF_LOG_DIR says.
      expect([bed.list('logs'), bed.list('work', 'own')]).toEqual([[], [expect.stringMatching(/^criu-dump-.*\.log$/)]]);
      await first.progresses(2);
      const second = bed.run(
        await bed.place(),
        [...url(bed), '--lease-wait', '0s', '--force-lease', '-n', 'other'],
        loop(bed),
        {
          env: { CRIU_OPTS: ' --ghost-limit  64M ' },
        },
      );
      await second.progresses(2);
      const once = await second.checkpoint([], { env: { CRIU_OPTS: '--no-such-option' } });
      expect(once.code).toBe(170);
      await second.freeze();
      const third = bed.run(await bed.place(), url(bed), [], { env: { CRIU_OPTS: '--no-such-option' } });
      expect(await third.ends()).toMatchObject({ code: 171 });
      first.signal('SIGTERM');
      expect(await first.ends()).toMatchObject({ code: 143 });
    });
  }, 60_000);

  test('S3_CMD and GS_CMD of FastFreeze are refused where they would be passed over, and only there', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const job = bed.run(place, url(bed), loop(bed), { env: { S3_CMD: 'aws s3', GS_CMD: 'gcsthin' } });
      await job.progresses(2);
      for (const [scheme, variable] of [
        ['s3', 'S3_CMD'],
        ['gs', 'GS_CMD'],
      ] as const) {
        const bucket = `${scheme}://no-such-bucket/job`;
        const env = { [variable]: 'somebody --endpoint else' };
        for (const words of [
          ['run', '--image-url', bucket, '-n', 'other', '--', 'true'],
          ['checkpoint', '--image-url', bucket],
          ['extract', bucket],
          ['list', bucket],
        ]) {
          const answer = await place.fastfreeze(words, { env });
          expect(answer.code).toBe(2);
          expect(answer.stderr).toMatch(
            new RegExp(`^Error: cannot use ${variable}=somebody .*\nTry: unset ${variable}; `, 'm'),
          );
        }
        expect(await job.checkpoint(['--leave-running'], { env })).toMatchObject({ code: 0 });
      }
      bed.write('stop', '');
      expect(await job.ends()).toMatchObject({ code: 0 });
    });
  }, 60_000);

  test('FF_THREADS changes how many threads the supervisor has; a job continues with the fewest', async () => {
    await withBed('root', async (bed) => {
      const command = [PYTHON, fixture('memory.py'), bed.path('stop'), '16'];
      const wrong = bed.run(await bed.place(), url(bed), command, { env: { FF_THREADS: '1' } });
      expect(await wrong.ends()).toMatchObject({ code: 2 });
      expect(wrong.stderr).toMatch(/FF_THREADS=1: expected a whole number from 2 to 1024\nTry: /);
      let output = '';
      const counts: number[] = [];
      for (const count of ['2', '12']) {
        const job = bed.run(await bed.place(), url(bed), command, { env: { FF_THREADS: count } });
        await job.ready(counts.length === 0 ? 'scratch' : 'restored');
        await job.progresses(2);
        await job.commits(['--leave-running']);
        const supervisors = descendantsOf(job.pid).filter((pid) => inspect(pid)?.command.includes('supervisor-main'));
        counts.push(Math.max(...supervisors.map((pid) => readdirSync(`/proc/${pid}/task`).length)));
        await job.progresses(2);
        if (count === '2') await job.freeze();
        else bed.write('stop', '');
        expect(await job.ends()).toMatchObject({ code: count === '2' ? 137 : 0 });
        output += job.stdout;
      }
      expect((counts[1] ?? 0) - (counts[0] ?? 0)).toBe(10);
      checkLines(output);
    });
  }, 60_000);

  test('FF_LINGER_MS keeps the job for a while after whoever asked for its last checkpoint has ended', async () => {
    await withBed('root', async (bed) => {
      const command = [PYTHON, fixture('memory.py'), bed.path('stop'), '16'];
      const wrong = bed.run(await bed.place(), url(bed), command, { env: { FF_LINGER_MS: '1s' } });
      expect(await wrong.ends()).toMatchObject({ code: 2 });
      expect(wrong.stderr).toMatch(/FF_LINGER_MS=1s: it is not a number of milliseconds\nTry: /);
      const lingerMs = 3_000;
      const job = bed.run(await bed.place(), url(bed), command, { env: { FF_LINGER_MS: String(lingerMs) } });
      await job.ready('scratch');
      await job.progresses(2);
      const askedMs = performance.now();
      await job.freeze();
      expect(await job.ends()).toMatchObject({ code: 137 });
      expect(performance.now() - askedMs).toBeGreaterThan(lingerMs);
    });
  }, 60_000);

  test('FF_NODE is the Node.js that runs it, and its supervisor', async () => {
    await withBed('user', async (bed) => {
      const node = bed.write(
        'node',
        `#!/bin/sh\nprintf '%s\\n' "$*" >>${bed.path('work', 'ran')}\nexec ${nodePath()} "$@"\n`,
      );
      chmodSync(node, 0o755);
      const job = bed.run(await bed.place(), url(bed), ['true'], { env: { FF_NODE: node } });
      expect(await job.ends()).toMatchObject({ code: 0 });
      expect(readFileSync(bed.path('work', 'ran'), 'utf8')).toMatch(/^--no-warnings \S+\/bin\/main\.js run /);
    });
  }, 30_000);

  test('FF_DEBUG shows where an error comes from; without it there is no stack trace', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const words = ['verify', `file:${bed.path('none')}`];
      const plain = await place.fastfreeze(words);
      expect(plain.code).not.toBe(0);
      expect(plain.stderr).not.toMatch(/^ +at /m);
      const debug = await place.fastfreeze(words, { env: { FF_DEBUG: '1' } });
      expect(debug.code).toBe(plain.code);
      expect(debug.stderr).toMatch(/^ +at .*verify/m);
    });
  }, 30_000);

  test('FF_LIBRARY_DIR is where the compression libraries are looked for first', async () => {
    await withBed('root', async (bed) => {
      const directory = bed.directory('libraries');
      copyFileSync(realpathSync(libraryPath('liblz4.so.1')), join(directory, 'liblz4.so.1'));
      const job = bed.run(await bed.place(), url(bed), loop(bed), { env: { FF_LIBRARY_DIR: directory } });
      await job.progresses(2);
      await job.commits(['--leave-running']);
      const maps = descendantsOf(job.pid).map((pid) => readIfThere(`/proc/${pid}/maps`));
      expect(maps.filter((text) => text.includes(join(directory, 'liblz4.so.1')))).toHaveLength(1);
      bed.write('stop', '');
      expect(await job.ends()).toMatchObject({ code: 0 });
    });
  }, 60_000);

  test('FF_FAKE_ROOT=1 gives uid 0 where subordinate ids would let a user keep its own', async () => {
    await withBed('user', async (bed) => {
      const files = {
        '/etc/passwd': `${readFileSync('/etc/passwd', 'utf8')}ff-user:x:${USER_ID}:${USER_ID}::/nonexistent:/bin/sh\n`,
        '/etc/subuid': `${USER_ID}:3000000:65536\n`,
        '/etc/subgid': `${USER_ID}:3100000:65536\n`,
      };
      const place = await bed.place({ files });
      const own = bed.run(place, url(bed), ['sh', '-c', 'id -u']);
      expect(await own.ends()).toMatchObject({ code: 0 });
      expect(own.stdout).toBe(`${USER_ID}\n`);
      const fake = bed.run(place, url(bed), ['sh', '-c', 'id -u'], { env: { FF_FAKE_ROOT: '1' } });
      expect(await fake.ends()).toMatchObject({ code: 0 });
      expect(fake.stdout).toBe('0\n');
    });
  }, 30_000);
});

/** What belongs to a process that has gone meanwhile is empty. */
function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
