// SPDX-License-Identifier: Apache-2.0
// `--checkpoint-every auto`: real checkpoints, at an interval that comes from what they cost.
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { checkLines } from '../support/lines.js';
import type { Place } from '../support/place.js';
import { PYTHON, fixture } from '../support/stage.js';

interface Pace {
  readonly samples: number;
  readonly rateSamples: number;
  readonly captureBytesPerSecond: number;
}

test('--checkpoint-every auto measures, remembers in the image, and plans with it in the next run', async () => {
  await withBed('root', async (bed) => {
    const options = ['--image-url', `file:${bed.path('image')}`, '--checkpoint-every', 'auto'];
    const often = [...options, '--mean-time-to-preemption', '20s'];
    // Large enough for a rate to be measured.
    const command = [PYTHON, fixture('memory.py'), bed.path('stop'), '32'];
    const first = bed.run(await bed.place(), often, command);
    await first.says(/Planning checkpoints every [\d.]+ s or so/);
    await first.says(/Checkpoint 2 complete/);
    expect(first.stderr).toMatch(/Checkpointing application to file:\S+ \(timer\)/);
    await first.progresses(2);
    await first.freeze();
    const measured = await paceOf(bed, undefined);
    expect(measured.samples).toBeGreaterThanOrEqual(3);
    expect(measured.rateSamples).toBeGreaterThanOrEqual(1);
    expect(measured.captureBytesPerSecond).toBeGreaterThan(1);

    // By the default mean time nothing is due for a minute: what is known comes from the image.
    const place = await bed.place();
    const second = bed.run(place, options, command);
    await second.ready('restored');
    await second.progresses(2);
    expect(await paceOf(bed, place)).toEqual(measured);
    await second.says(/Planning checkpoints every \d+ s or so/);
    bed.write('stop', '');
    expect(await second.ends()).toMatchObject({ code: 0 });
    checkLines(first.stdout + second.stdout);
  });
}, 90_000);

/** What a running job says, or the newest image. */
async function paceOf(bed: Bed, place: Place | undefined): Promise<Pace> {
  if (place !== undefined) {
    const { stdout } = await place.fastfreeze(['status', '--json']);
    return (JSON.parse(stdout) as { jobs: [{ pace: Pace }] }).jobs[0].pace;
  }
  return (JSON.parse(readFileSync(bed.path('image', 'manifest.json'), 'utf8')) as { app: { pace: Pace } }).app.pace;
}
