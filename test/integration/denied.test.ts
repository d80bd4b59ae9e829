// SPDX-License-Identifier: Apache-2.0
// Where the machine forbids what a container or a checkpoint needs, an error says so and nothing of the job is harmed.
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { fastfreeze, fixture, PYTHON } from '../support/stage.js';

const url = (bed: Bed): string[] => ['--image-url', `file:${bed.path('image')}`];
const denying = (what: string): string[] => [PYTHON, fixture('deny.py'), what];

for (const identity of ['root', 'user'] as const) {
  // Root needs no user namespace, and CRIU makes its time namespace.
  const needed = identity === 'root' ? ['pid', 'mnt', 'mount'] : ['user', 'pid', 'mnt', 'ipc', 'time', 'mount'];
  describe(`as ${identity}`, () => {
    test.each(needed)(
      '%s denied: no job is started, and the error says what to do',
      async (what) => {
        await withBed(identity, async (bed) => {
          const ran = bed.path('work', 'ran');
          const job = bed.run(await bed.place(), url(bed), ['touch', ran], { within: denying(what) });
          expect(await job.ends()).toMatchObject({ code: 170 });
          expect(job.stderr).toMatch(
            /^Error: .*(this \w+ may not make namespaces|no user namespace can be made here)/m,
          );
          expect(job.stderr).toMatch(/^Try: .*in Docker add --privileged/m);
          expect(job.stderr).not.toMatch(/^ +at /m);
          expect(bed.list('work')).toEqual([]);
        });
      },
      60_000,
    );

    test('ptrace denied: the checkpoint is refused with its remedy, twice, and the application runs on', async () => {
      await withBed(identity, async (bed) => {
        const command = ['sh', fixture('shell-loop.sh'), bed.path('stop')];
        const job = bed.run(await bed.place(), url(bed), command, { within: denying('ptrace') });
        await job.progresses(2);
        for (let i = 0; i < 2; i += 1) {
          const refused = await job.checkpoint();
          expect(refused.code).toBe(170);
          expect(refused.stderr).toMatch(/^Error: cannot freeze the application: .*(trace|seccomp)/m);
          expect(refused.stderr).toMatch(/^Try: /m);
          await job.progresses(2);
        }
        expect(bed.list('image').filter((name) => name.startsWith('manifest'))).toEqual([]);
        bed.write('stop', '');
        expect(await job.ends()).toMatchObject({ code: 0 });
      });
    }, 60_000);
  });
}

test('doctor says of a time namespace that is denied what it means: a normal user’s jobs do not start', async () => {
  await withBed('user', async (bed) => {
    const place = await bed.place();
    const answer = await place.exec([...denying('time'), ...fastfreeze(), 'doctor', '--json']);
    expect(answer.code).toBe(170);
    const { rows } = JSON.parse(answer.stdout) as { rows: { name: string }[] };
    expect(rows).toContainEqual({
      name: 'clocks',
      status: 'fail',
      detail: expect.stringMatching(
        /^a time namespace cannot be made \(.*\): no job of a normal user starts$/,
      ) as unknown,
      remedy: expect.stringContaining('in Docker add --privileged') as unknown,
    });
  });
}, 60_000);

test('an IPC namespace denied to root: the job runs without, and a warning says what that means', async () => {
  await withBed('root', async (bed) => {
    const job = bed.run(await bed.place(), url(bed), ['echo', 'runs'], { within: denying('ipc') });
    expect(await job.ends()).toMatchObject({ code: 0 });
    expect(job.stdout).toBe('runs\n');
    expect(job.stderr).toMatch(/no IPC namespace for the application: what it has of System V IPC cannot be frozen/);
  });
}, 60_000);
