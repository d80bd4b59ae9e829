// SPDX-License-Identifier: Apache-2.0
// A checkpoint that fails costs nothing: the application runs on, the image before it restores, the error says why.
import { writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { checkNames, generations, imageHashes } from '../support/image.js';
import { checkLines } from '../support/lines.js';
import { processesIn, signalPid } from '../support/processes.js';
import { Choices } from '../support/random.js';
import { fastfreeze, fixture, PYTHON } from '../support/stage.js';
import { ended, type Answer } from '../support/place.js';
import type { Job } from '../support/job.js';
import { sleep, until } from '../support/until.js';

const MB = 1 << 20;

/** The application goes on, no CRIU is left, and what was in the image before is there, byte for byte. */
async function expectUnharmed(bed: Bed, job: Job, image: string, before: Record<string, string>): Promise<void> {
  expect(job.running).toBe(true);
  await job.progresses(5);
  expect(bed.survivors().filter((p) => /\bcriu\b/.test(p.command) || p.state === 'T' || p.state === 't')).toEqual([]);
  expect(imageHashes(image)).toEqual(before);
}

function expectHelpfulError(answer: Answer, cause: RegExp): void {
  expect(answer.code).toBe(170);
  expect(answer.stderr).toMatch(/^Error: .+/m);
  expect(answer.stderr).toMatch(/^Try: .+/m);
  expect(answer.stderr).toMatch(cause);
}

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    test('the store is full: refused, unharmed, and works again when there is room', async () => {
      await withBed(identity, async (bed) => {
        const store = bed.tmpfs('store', 48 * MB);
        const image = bed.path('store', 'job');
        const options = ['--image-url', `file:${image}`, '--cpu-budget', 'low'];
        const [stopFile, grow] = [bed.path('stop'), bed.path('grow')];
        // Small at first, so that one image fits; then it takes more memory than the store has.
        const script = `import sys; sys.path.insert(0, ${JSON.stringify(fixture('.'))}); sys.argv = ['x', ${JSON.stringify(stopFile)}]
import os
from ffcheck import *
blocks, digest = [], None
while not stopped():
    if os.path.exists(${JSON.stringify(grow)}) and not blocks:
        blocks = [os.urandom(${MB}) for _ in range(80)]; digest = hash(tuple(blocks))
    check(digest is None or hash(tuple(blocks)) == digest, 'memory changed')
    line('big' if blocks else 'small'); pace()
done()`;
        const job = bed.run(await bed.place(), options, [PYTHON, '-c', script]);
        await job.ready();
        await job.progresses(3);
        await job.commits(['--leave-running']);
        const before = imageHashes(image);
        writeFileSync(grow, '');
        await job.prints(/big/);
        for (let i = 0; i < 2; i += 1) {
          expectHelpfulError(await job.checkpoint(), /no space|full|ENOSPC/i);
          await expectUnharmed(bed, job, image, before);
        }
        expect(store).toBe(bed.path('store'));
        // The image from before restores, elsewhere and to the line.
        const elsewhere = await bed.place();
        const copied = await elsewhere.fastfreeze(['cp', `file:${image}`, `file:${bed.path('copy')}`]);
        expect(copied.code).toBe(0);
        const other = bed.run(elsewhere, ['--image-url', `file:${bed.path('copy')}`], []);
        await other.ready('restored');
        await other.progresses(3);
        signalPid(other.pid, 'SIGTERM');
        await other.ends();
        writeFileSync(stopFile, '');
        expect(await job.ends()).toMatchObject({ code: 0 });
        checkLines(job.stdout);
        expect(job.stderr + other.stderr).not.toMatch(/VIOLATION/);
      });
    }, 180_000);

    test('the store is read-only: refused and unharmed', async () => {
      await withBed(identity, async (bed) => {
        const image = bed.directory('store');
        const stopFile = bed.path('stop');
        const job = bed.run(
          await bed.place(),
          ['--image-url', `file:${image}`],
          ['sh', fixture('shell-loop.sh'), stopFile],
        );
        await job.ready();
        await job.progresses(2);
        await job.commits(['--leave-running']);
        const before = imageHashes(image);
        bed.readOnly(image);
        // The job's container has its own mounts; a new mount outside must not be relied on to show inside: ask by permission too.
        const answer = await job.checkpoint();
        if (answer.code === 0) {
          // Private mounts hid it. The image must then be whole.
          expect(await job.ends()).toMatchObject({ code: 137 });
          expect(generations(image)).toContain(2);
        } else {
          expectHelpfulError(answer, /read-only|EROFS|permission/i);
          await expectUnharmed(bed, job, image, before);
          writeFileSync(stopFile, '');
          expect(await job.ends()).toMatchObject({ code: 0 });
          checkLines(job.stdout);
        }
      });
    }, 120_000);

    test('a checkpoint into a place that cannot be written: refused and unharmed', async () => {
      await withBed(identity, async (bed) => {
        const stopFile = bed.path('stop');
        const job = bed.run(
          await bed.place(),
          ['--image-url', `file:${bed.path('image')}`],
          ['sh', fixture('shell-loop.sh'), stopFile],
        );
        await job.ready();
        await job.progresses(2);
        const file = bed.write('a-file', 'not a directory');
        for (const url of [`file:${file}/image`, 'file:/proc/nowhere/image']) {
          const answer = await job.checkpoint(['--image-url', url]);
          expectHelpfulError(answer, /not a directory|ENOTDIR|ENOENT|no such|permission|cannot/i);
          expect(job.running).toBe(true);
          await job.progresses(5);
        }
        writeFileSync(stopFile, '');
        expect(await job.ends()).toMatchObject({ code: 0 });
        checkLines(job.stdout);
      });
    }, 120_000);

    test('the client is killed or interrupted at any instant: no harm', async () => {
      await withBed(identity, async (bed) => {
        const choices = new Choices(`${identity}/client`);
        const image = bed.path('image');
        const stopFile = bed.path('stop');
        const place = await bed.place();
        const job = bed.run(place, ['--image-url', `file:${image}`], [PYTHON, fixture('memory.py'), stopFile, '60']);
        await job.ready();
        await job.progresses(2);
        for (const signal of ['SIGKILL', 'SIGTERM', 'SIGKILL', 'SIGINT'] as const) {
          const client = place.start([...fastfreeze(), 'checkpoint', '--leave-running']);
          const pid = client.pid ?? -1;
          const end = ended(client, 'the client', () => '');
          await sleep(choices.between(20, 600));
          signalPid(pid, signal);
          await end;
          await job.progresses(3);
          expect(job.running).toBe(true);
          if (generations(image).length > 0) checkNames(image, { writing: true });
        }
        // Whatever became of those, the next one works.
        await until('no CRIU', () => processesIn(place.uts).every((p) => !/\bcriu\b/.test(p.command)));
        await job.freeze();
        const next = bed.run(await bed.place(), ['--image-url', `file:${image}`], []);
        await next.ready('restored');
        await next.progresses(2);
        writeFileSync(stopFile, '');
        expect(await next.ends()).toMatchObject({ code: 0 });
        checkLines(job.stdout + next.stdout);
        checkNames(image);
      });
    }, 180_000);
  });
}
