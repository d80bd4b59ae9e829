// SPDX-License-Identifier: Apache-2.0
// System V shared memory, semaphores and queues, POSIX message queues: they come back as they were, or are refused with words.
import { writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { withBed, type Bed, type Identity } from '../support/bed.js';
import type { Job } from '../support/job.js';
import { checkLines } from '../support/lines.js';
import { fixture, PYTHON } from '../support/stage.js';

const command = (bed: Bed, kinds: string): string[] => [
  PYTHON,
  fixture('sysv.py'),
  bed.path('stop'),
  kinds,
  bed.path('go'),
];

async function start(
  bed: Bed,
  kinds: string,
  options: readonly string[] = [],
  within?: readonly string[],
): Promise<Job> {
  const words = ['--image-url', `file:${bed.path('image')}`, ...options];
  const job = bed.run(await bed.place(), words, command(bed, kinds), within === undefined ? {} : { within });
  await job.ready('scratch');
  await job.prints(/^0 holding/m);
  return job;
}

/** It looks at what it holds, and goes on to its end. */
async function isExact(bed: Bed, job: Job, output = ''): Promise<void> {
  writeFileSync(bed.path('go'), '');
  await job.prints(/ exact$/m);
  writeFileSync(bed.path('stop'), '');
  expect(await job.ends()).toMatchObject({ code: 0 });
  checkLines(output + job.stdout);
}

const COMES_BACK: readonly (readonly [Identity, string])[] = [
  ['root', 'shm,sem,msg'],
  ['user', 'sem,msg'],
];

test.each(COMES_BACK)(
  'as %s: %s come back twice, with identifiers, contents and what is to be removed',
  async (identity, kinds) => {
    await withBed(identity, async (bed) => {
      let job = await start(bed, kinds);
      let output = '';
      // The second is a freeze of what CRIU has made.
      for (const clockOffsetS of [3000, 70_000]) {
        expect(await job.checkpoint()).toMatchObject({
          code: 0,
          stderr: expect.not.stringContaining('Error:') as unknown,
        });
        expect(await job.ends()).toMatchObject({ code: 137 });
        output += job.stdout;
        const words = ['--image-url', `file:${bed.path('image')}`];
        job = bed.run(await bed.place({ clockOffsetS }), words, command(bed, kinds));
        await job.ready('restored');
      }
      await isExact(bed, job, output);
    });
  },
  90_000,
);

const REFUSED: readonly (readonly [Identity, string, RegExp, RegExp])[] = [
  ['root', 'large', /\): the System V message queue \d+ may hold a message over 8 KiB/, /kernel\.msgmax/],
  [
    'user',
    'shm',
    /\): it has a System V shared memory segment, which cannot be saved for a normal user$/,
    /run as root/,
  ],
  ['root', 'sem,undo', /\): its end may give back System V semaphores \(set \d+\).* SEM_UNDO/, /POSIX semaphores/],
  ['user', 'sem,threads', /\): its end may give back System V semaphores \(set \d+\).* SEM_UNDO/, /--allow-inexact/],
  [
    'root',
    'posix',
    /, descriptor \d+: the POSIX message queue \/ff-test-0 cannot be saved$/,
    /System V message queues/,
  ],
  ['user', 'left', /\): the POSIX message queue \/ff-test-\d+ would be forgotten$/, /System V message queues/],
];

test.each(REFUSED)(
  'as %s: %s are refused, and it runs on',
  async (identity, kinds, reason, remedy) => {
    await withBed(identity, async (bed) => {
      const job = await start(bed, kinds);
      const answer = await job.checkpoint();
      expect(answer.code).toBe(170);
      const [error = '', hint = ''] = answer.stderr.split('\n').filter((line) => /^(Error|Try): /.test(line));
      expect(error).toMatch(/^Error: cannot freeze process 1000 \(python3/);
      expect(error).toMatch(reason);
      expect(hint).toMatch(remedy);
      await isExact(bed, job);
    });
  },
  60_000,
);

test('--allow-inexact saves semaphores of a process with threads, and says what may be missing', async () => {
  await withBed('root', async (bed) => {
    const job = await start(bed, 'sem,threads', ['--allow-inexact']);
    expect(await job.checkpoint(['--leave-running'])).toMatchObject({ code: 0 });
    expect(job.stderr).toMatch(/the image is not exact: 1000 \(python3.*\): its end may give back System V semaphores/);
    await isExact(bed, job);
  });
}, 60_000);

const PRIVATE = ['unshare', '--pid', '--fork', '--mount', '--mount-proc', '--kill-child'];

test.each([
  ['shm', /it has a System V shared memory segment, and no IPC namespace of its own/],
  ['sem', /the System V semaphores \d+ would be left behind: the job has no IPC namespace of its own/],
  ['msg', /the System V message queue \d+ would be left behind: the job has no IPC namespace of its own/],
])(
  '--no-container: %s are refused, since the job shares the namespace of the container it is in',
  async (kind, reason) => {
    await withBed('root', async (bed) => {
      const job = await start(bed, kind, ['--no-container'], PRIVATE);
      const answer = await job.checkpoint();
      expect(answer.code).toBe(170);
      expect(answer.stderr).toMatch(reason);
      expect(answer.stderr).toMatch(/^Try: .*start it anew without --no-container/m);
      await isExact(bed, job);
    });
  },
  60_000,
);
