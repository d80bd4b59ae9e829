// SPDX-License-Identifier: Apache-2.0
// Jobs whose images lie in GitHub's cache, with a real CRIU and the real client, against the strict fake.
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { CacheFake } from '../support/cache-fake.js';
import { checkLines } from '../support/lines.js';
import { fixture } from '../support/stage.js';

let fake: CacheFake;

beforeAll(async () => {
  fake = await CacheFake.start();
});

afterEach(() => {
  fake.fault = () => undefined;
  fake.isFull = false;
  fake.check();
});

afterAll(() => fake.stop());

test('a job continues elsewhere, generation after generation; one with an evicted part is refused, and the one before it is not', async () => {
  await withBed('root', async (bed) => {
    const env = {
      ...fake.env(),
      'INPUT_GITHUB-TOKEN': 'secret-i',
      GITHUB_TOKEN: 'secret-g',
      STATE_X: 'secret-s',
      KEPT: 'k',
    };
    const options = ['--image-base', 'cache:team', '--job-id', 'Story 1'];
    const command = [
      'sh',
      '-c',
      `env >'${bed.path('work', 'env')}'; exec sh '${fixture('shell-loop.sh')}' '${bed.path('stop')}'`,
    ];
    const said: string[] = [];
    for (const [round, clockOffsetS] of [0, 5000].entries()) {
      const job = bed.run(await bed.place({ clockOffsetS }), options, command, { env });
      await job.ready(round === 0 ? 'scratch' : 'restored');
      expect(job.stderr).toContain('A cache has no leases');
      await job.progresses(3);
      await job.freeze();
      expect(fake.keys().at(-1)).toBe(`fastfreeze:team/Story%201:manifest-0000000${round + 1}.json:once:1`);
      said.push(job.stdout);
    }
    const seen = readFileSync(bed.path('work', 'env'), 'utf8');
    expect(seen).toContain('KEPT=k');
    expect(seen).not.toMatch(/^(ACTIONS|INPUT|STATE)_|_TOKEN=|secret-/m);

    const place = await bed.place();
    const url = 'cache:team/Story 1';
    const listed = await place.fastfreeze(['list', url], { env });
    expect(listed.stdout).toMatch(/cache:team\/Story 1[^]*1 +checkpoint[^]*2 +checkpoint/);
    expect((await place.fastfreeze(['verify', '--all', url], { env })).code).toBe(0);
    expect((await place.fastfreeze(['inspect', url], { env })).stdout).toContain('shell-loop.sh');
    expect(await place.fastfreeze(['prune', '--keep', '1', url], { env })).toMatchObject({
      code: 170,
      stderr: expect.stringContaining('a cache removes what was not used for a week') as unknown,
    });
    const copy = bed.path('copy');
    expect((await place.fastfreeze(['cp', '--generation', '1', url, `file:${copy}`], { env })).code).toBe(0);

    const newest = prefixOf(2);
    expect(fake.evict((key) => key.includes(`:${newest}-1.ffs:`))).toBe(1);
    const refused = bed.run(await bed.place(), options, command, { env });
    expect((await refused.ends()).code).toBe(171);
    expect(refused.stderr).toMatch(new RegExp(`${newest}-1\\.ffs: this object of the image is missing`));
    expect(refused.stderr).toContain('--generation N');
    expect(refused.stdout).toBe('');

    const older = bed.run(await bed.place(), [...options, '--generation', '1'], command, { env });
    await older.ready('restored');
    await older.progresses(2);
    writeFileSync(bed.path('stop'), '');
    expect(await older.ends()).toMatchObject({ code: 0 });
    checkLines((said[0] ?? '') + older.stdout);
    expect(fake.keys().at(-1)).toContain(':manifest-00000003.json:once:1');
  });
}, 240_000);

test('whatever the cache refuses, the application runs on; of twins the first that commits goes on', async () => {
  await withBed('user', async (bed) => {
    const env = { ...fake.env(), FF_STORE_RETRY_S: '2' };
    const options = ['--image-url', 'cache:story-2'];
    const [first, second] = [
      bed.run(await bed.place(), options, loop(bed), { env }),
      bed.run(await bed.place(), options, loop(bed), { env }),
    ];
    await Promise.all([first.ready('scratch'), second.ready('scratch')]);

    fake.isFull = true;
    const full = await first.checkpoint();
    expect(full).toMatchObject({
      code: 170,
      stderr: expect.stringContaining("the repository's cache is full") as unknown,
    });
    expect(full.stderr).toContain('Try: free room with');
    fake.isFull = false;
    await first.progresses(2);

    fake.fault = ({ what, key }) =>
      what === 'upload' && key.includes('.ffs') ? { kind: 'answer', status: 403, message: 'expired' } : undefined;
    expect(await first.checkpoint()).toMatchObject({
      code: 170,
      stderr: expect.stringContaining('uploading cache archive: expired') as unknown,
    });
    fake.fault = () => undefined;
    await first.progresses(2);
    expect(fake.keys().filter((key) => key.includes('story-2:manifest'))).toEqual([]);

    await first.commits(['--leave-running']);
    const late = await second.checkpoint();
    expect(late).toMatchObject({ code: 170, stderr: expect.stringContaining('has committed generation 1') as unknown });
    await second.progresses(2);
    await first.freeze();
    writeFileSync(bed.path('stop'), '');
    expect((await second.ends()).code).toBe(0);
    expect(second.stderr).toContain('the record that the job has finished could not be written');
    checkLines(second.stdout);
  });
}, 240_000);

test('where there is no cache to write to, that is said before anything runs', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const words = ['run', '--image-url', 'cache:job'];
    expect(await place.fastfreeze([...words, '--', 'true'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN are not set') as unknown,
    });
    expect(await place.fastfreeze([...words, '--strict-lease', '--', 'true'], { env: fake.env() })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('a cache has no leases') as unknown,
    });
    const readOnly = fake.env([{ Scope: 'refs/pull/1/merge', Permission: 1 }]);
    expect(await place.fastfreeze([...words, '--', 'true'], { env: readOnly })).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('this run may only read the cache') as unknown,
    });
  });
}, 120_000);

/** Of the image that has the Nth manifest's shards: the Nth index is its. */
function prefixOf(generation: number): string {
  const indexes = fake.keys().flatMap((key) => /:([^:]+)\.ffi:/u.exec(key)?.[1] ?? []);
  return indexes[generation - 1] ?? '';
}

const loop = (bed: Bed): string[] => ['sh', fixture('shell-loop.sh'), bed.path('stop')];
