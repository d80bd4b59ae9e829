// SPDX-License-Identifier: Apache-2.0
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { withBed, type Bed, type Identity } from './bed.js';
import { CASES, type FixtureCase } from './cases.js';
import { checkNames, generations } from './image.js';
import { Choices, FULL } from './random.js';
import { PYTHON } from './stage.js';
import { Together } from './together.js';
import { sleep } from './until.js';

const CHECK_MS = FULL ? 3_000 : 700;
const REPEATS = FULL ? 3 : 1;
const FREEZES = 3;
/** At most so many fixtures share a job. */
const TOGETHER = 7;

/**
 * Fixtures that are frozen at random instants over three generations, each time elsewhere; they check themselves in between. In `npm test`
 * several share a job, so that one freeze catches all of them; at full length each has its own, again and again.
 */
export function testGenerations(identity: Identity, part: 'first' | 'second'): void {
  loadTheMachine();
  const possible = CASES.filter((one) => identity === 'root' || one.refusedForUser === undefined);
  const half = Math.ceil(possible.length / 2);
  for (const jobs of groups(part === 'first' ? possible.slice(0, half) : possible.slice(half))) {
    for (let repeat = 1; repeat <= REPEATS; repeat += 1) {
      const name = `as ${identity}, ${jobs.name} lives through three freezes${repeat > 1 ? ` (${repeat})` : ''}`;
      if (jobs.cases.some((one) => one.unavailable !== undefined)) test.skip(name, () => undefined);
      else
        test(
          name,
          async () =>
            await withBed(identity, async (bed) => await liveThrough(bed, jobs, `${identity}/${jobs.name}/${repeat}`)),
          240_000,
        );
    }
  }
}

/** What may not be there, is refused in the end, or measures how long a restore takes, has a job of its own always. */
function groups(cases: readonly FixtureCase[]): Together[] {
  const alone = (one: FixtureCase): boolean =>
    FULL || one.refusedOnceRestored !== undefined || one.mayBeMissing === true || one.measuresTime === true;
  const shared = cases.filter((one) => !alone(one));
  const count = Math.ceil(shared.length / TOGETHER);
  return [
    // Dealt out like cards, so that neighbours in the table, which are alike, are apart.
    ...Array.from({ length: count }, (_, group) => new Together(shared.filter((_one, at) => at % count === group))),
    ...cases.filter(alone).map((one) => new Together([one])),
  ];
}

async function liveThrough(bed: Bed, fixtures: Together, key: string): Promise<void> {
  const choices = new Choices(key);
  const stopFile = bed.path('stop');
  const command = fixtures.command(bed, stopFile);
  let output = '';
  for (let generation = 0; generation <= FREEZES; generation += 1) {
    const place = await bed.place({ clockOffsetS: choices.pick([0, 7, 5_000, 400_000]) });
    const job = bed.run(place, ['--image-url', `file:${bed.path('image')}`], command);
    await job.ready(generation === 0 ? 'scratch' : 'restored');
    if (generation > 0) {
      await sleep(CHECK_MS);
      await fixtures.progresses(job, 3);
    } else if (choices.next() < 0.75) {
      await fixtures.progresses(job, 3);
    }
    await sleep(choices.between(0, 400));
    const refused = generation > 0 ? fixtures.cases[0]?.refusedOnceRestored : undefined;
    if (refused !== undefined) {
      const answer = await job.checkpoint();
      expect(answer.code).toBe(170);
      expect(answer.stderr).toMatch(refused);
      expect(job.stderr).toMatch(/Warning: process \d+/);
      await fixtures.progresses(job, 3);
    }
    if (generation < FREEZES && refused === undefined) {
      await job.freeze();
      expect(generations(bed.path('image')).at(-1)).toBe(generation + 1);
      checkNames(bed.path('image'));
    } else {
      writeFileSync(stopFile, '');
      expect(await job.ends()).toMatchObject({ code: 0 });
    }
    expect(job.stderr).not.toMatch(/VIOLATION|Traceback/);
    output += job.stdout;
    if (refused !== undefined) break;
  }
  expect(existsSync(stopFile)).toBe(true);
  fixtures.checkLines(output);
}

/** Something else wants the processors all the time, as on a shared machine. In `npm test` the other suites do most of that. */
function loadTheMachine(): void {
  let load: ChildProcess | undefined;
  beforeAll(() => {
    const program = `import os\nos.nice(${FULL ? 5 : 15})\nwhile os.getppid() != 1: sum(range(100000))`;
    load = spawn(PYTHON, ['-c', program], { stdio: 'ignore' });
  });
  afterAll(() => {
    load?.kill('SIGKILL');
  });
}
