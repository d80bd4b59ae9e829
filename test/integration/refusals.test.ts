// SPDX-License-Identifier: Apache-2.0
// What cannot be frozen exactly is refused, with the process, the descriptor and a remedy, and the application runs on.
import { copyFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed, type Identity } from '../support/bed.js';
import { CASES } from '../support/cases.js';
import { checkLines } from '../support/lines.js';
import { fixture, PYTHON } from '../support/stage.js';
import type { Job } from '../support/job.js';
import type { Answer } from '../support/place.js';

/** After a refusal: an error that helps, nothing of CRIU left, no image, and an application that goes on to its proper end. */
async function expectRefusal(bed: Bed, job: Job, answer: Answer, what: RegExp): Promise<void> {
  expect(answer.code).toBe(170);
  expect(answer.stdout).toBe('');
  expect(answer.stderr).toMatch(/^Error: .+/m);
  expect(answer.stderr).toMatch(/^Try: .+/m);
  expect(answer.stderr).toMatch(what);
  expect(answer.stderr).toMatch(/\b(process|PID|pid)\b/);
  expect(job.running).toBe(true);
  await job.progresses(5);
  expect(bed.survivors().filter((p) => /\bcriu\b/.test(p.command))).toEqual([]);
  expect(bed.list('image').filter((name) => name.startsWith('manifest'))).toEqual([]);
}

describe('as a normal user', () => {
  for (const one of CASES) {
    const refusal = one.refusedForUser;
    if (refusal === undefined) continue;
    test(`${one.name}: refused, twice, and it runs on`, async () => {
      await withBed('user', async (bed) => {
        const stopFile = bed.path('stop');
        const job = bed.run(
          await bed.place(),
          ['--image-url', `file:${bed.path('image')}`],
          one.command(bed, stopFile),
        );
        await job.ready('scratch');
        await job.progresses(3);
        for (let i = 0; i < 2; i += 1) await expectRefusal(bed, job, await job.checkpoint(), refusal);
        writeFileSync(stopFile, '');
        expect(await job.ends()).toMatchObject({ code: 0 });
        checkLines(job.stdout);
      });
    }, 120_000);
  }
});

const COUNT = 'n=0; until [ -e "$0" ]; do echo $n; n=$((n+1)); sleep 0.1; done; echo done';
const within = (option: string): string[] => ['sh', '-c', `unshare ${option} sleep 60 & trap 'kill $!' EXIT; ${COUNT}`];

test.each([
  ['a process in a network', 'network', within('--net')],
  ['a process in a mount', 'mount', within('--mount')],
  ['a process in a user', 'user', within('--user')],
  ['the whole job in a mount', 'mount', ['unshare', '--mount', 'sh', '-c', COUNT]],
])(
  '%s namespace of its own: refused before an image is made that cannot be restored',
  async (_, kind, command) => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const job = bed.run(place, ['--image-url', `file:${bed.path('image')}`], [...command, bed.path('stop')]);
      await job.progresses(5);
      const what = new RegExp(`process \\d+ \\(.*\\): it is in a ${kind} namespace of its own`);
      await expectRefusal(bed, job, await job.checkpoint(['--allow-inexact']), what);
      writeFileSync(bed.path('stop'), '');
      expect(await job.ends()).toMatchObject({ code: 0 });
    });
  },
  60_000,
);

test('srun, whose tasks are not in the tree: refused while it runs, unless that is allowed', async () => {
  await withBed('user', async (bed) => {
    // Known by its name and program; what it does does not matter.
    const srun = bed.path('work', 'srun');
    copyFileSync('/bin/sleep', srun);
    const command = ['sh', '-c', `${srun} 60 & trap 'kill $!' EXIT; ${COUNT}`, bed.path('stop')];
    const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], command);
    await job.progresses(5);
    await expectRefusal(bed, job, await job.checkpoint(), /process \d+ \(srun\): srun would wait for ever for tasks/);
    const allowed = await job.checkpoint(['--leave-running', '--allow-inexact']);
    expect(allowed).toMatchObject({ code: 0 });
    expect(job.stderr).toMatch(/the image is not exact: \d+ \(srun\): srun would wait/);
    writeFileSync(bed.path('stop'), '');
    expect(await job.ends()).toMatchObject({ code: 0 });
  });
}, 60_000);

const STATES: readonly { readonly kind: string; readonly state: string; readonly refusal: RegExp }[] = [
  { kind: 'timerfd', state: 'an expired periodic timerfd that was not read', refusal: /timerfd/i },
  { kind: 'eventfd', state: 'an eventfd with EFD_SEMAPHORE', refusal: /eventfd/i },
  { kind: 'zombie', state: 'a zombie that exited with 255', refusal: /zombie|exit/i },
  { kind: 'packet', state: 'a pipe in packet mode with packets in it', refusal: /packet|O_DIRECT/i },
  { kind: 'memfd', state: 'a memfd that is mapped and open', refusal: /memfd/i },
];

for (const identity of ['root', 'user'] as const satisfies readonly Identity[]) {
  describe(`as ${identity}: what CRIU brings back inexactly`, () => {
    for (const { kind, state, refusal } of STATES) {
      test(`${state}: exact, or refused and it runs on`, async () => {
        await withBed(identity, async (bed) => {
          const [stopFile, go, url] = [bed.path('stop'), bed.path('go'), `file:${bed.path('image')}`];
          const command = [PYTHON, fixture('inexact.py'), stopFile, kind, go];
          let job = bed.run(await bed.place(), ['--image-url', url], command);
          await job.ready('scratch');
          await job.prints(/^0 holding/m);
          const answer = await job.checkpoint();
          let output = '';
          if (answer.code === 0) {
            expect(await job.ends()).toMatchObject({ code: 137 });
            output = job.stdout;
            job = bed.run(await bed.place({ clockOffsetS: 3000 }), ['--image-url', url], command);
            await job.ready('restored');
          } else {
            await expectRefusal(bed, job, answer, refusal);
          }
          // Now it looks at what it holds: exact, either way.
          writeFileSync(go, '');
          await job.prints(/ exact$/m);
          writeFileSync(stopFile, '');
          expect(await job.ends()).toMatchObject({ code: 0 });
          checkLines(output + job.stdout);
        });
      }, 120_000);
    }
  });
}
