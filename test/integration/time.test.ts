// SPDX-License-Identifier: Apache-2.0
// Clocks that continue are seen in `status`; where they cannot, a job says so or does not start.
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import type { Job } from '../support/job.js';
import { checkLines } from '../support/lines.js';
import { fixture, PYTHON } from '../support/stage.js';

const url = (bed: Bed): string[] => ['--image-url', `file:${bed.path('image')}`];
/** A container that is private, made by somebody else, without rights of the machine. */
const WITHIN = ['unshare', '--user', '--map-root-user', '--pid', '--fork', '--mount', '--mount-proc', '--kill-child'];

async function statusOf(job: Job): Promise<{ text: string; monotonicSeconds: number; boottimeSeconds: number }> {
  const text = await job.place.fastfreeze(['status']);
  const json = await job.place.fastfreeze(['status', '--json']);
  const { jobs } = JSON.parse(json.stdout) as {
    jobs: { clockOffsets: { monotonicSeconds: number; boottimeSeconds: number } }[];
  };
  if (jobs[0] === undefined) throw new Error('no job');
  return { text: text.stdout, ...jobs[0].clockOffsets };
}

/** By how many seconds the application's clock is ahead of that of this test, which is the machine's. */
function seen(job: Job, clock: 'mono' | 'boot'): number {
  const numbers = [...job.stdout.matchAll(new RegExp(`${clock} (\\d+)`, 'g'))].map((match) => Number(match[1]));
  return (numbers.at(-1) ?? NaN) / 1e9 - Number(process.hrtime.bigint()) / 1e9;
}

/** A slow machine takes its time between two looks; the offsets differ by far more. */
const LEEWAY_S = 60;

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    test('status shows how far the clocks of a restored application are from the machine’s', async () => {
      await withBed(identity, async (bed) => {
        const command = [PYTHON, fixture('clocks.py'), bed.path('stop'), '30'];
        const options = [...url(bed), '--require-time-virtualization'];
        const first = bed.run(await bed.place({ clockOffsetS: 7000 }), options, command);
        await first.progresses(3);
        await first.freeze();
        const second = bed.run(await bed.place(), options, command);
        await second.ready('restored');
        await second.progresses(3);
        const status = await statusOf(second);
        expect(Math.abs(status.monotonicSeconds - seen(second, 'mono'))).toBeLessThan(LEEWAY_S);
        expect(status.monotonicSeconds).toBeGreaterThan(7000 - LEEWAY_S);
        expect(status.boottimeSeconds).toBeGreaterThan(7000 - LEEWAY_S);
        expect(status.text).toMatch(
          /^ {2}clocks {6}monotonic \+\d{4}\.\d{3} s, boot \+\d{4}\.\d{3} s from the machine's$/m,
        );
        bed.write('stop', '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout);
        expect(first.stderr + second.stderr).not.toMatch(/clocks/);
      });
    }, 60_000);
  });
}

test('without a container of its own a normal user’s job says that clocks will jump, or does not start', async () => {
  await withBed('user', async (bed) => {
    const place = await bed.place();
    const refused = bed.run(
      place,
      [...url(bed), '--no-container', '--require-time-virtualization'],
      ['touch', bed.path('work', 'ran')],
      { within: WITHIN },
    );
    expect(await refused.ends()).toMatchObject({ code: 170 });
    expect(refused.stderr).toMatch(
      /cannot let the monotonic and boot clocks continue .*\nTry: leave out --no-container/,
    );
    expect(bed.list('work')).toEqual([]);
    const warned = bed.run(place, [...url(bed), '--no-container'], ['true'], { within: WITHIN });
    expect(await warned.ends()).toMatchObject({ code: 0 });
    expect(warned.stderr).toMatch(/Warning: the monotonic and boot clocks of this job will jump at a restore/);
  });
}, 60_000);
