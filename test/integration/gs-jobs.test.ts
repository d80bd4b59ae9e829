// SPDX-License-Identifier: Apache-2.0
// Jobs whose images lie in Google Cloud Storage, with a real CRIU and the real SDK, against the strict fake.
import { writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { GcsFake, type SeenRequest } from '../support/gcs-fake.js';
import { inTurn } from '../support/in-turn.js';
import { checkLines } from '../support/lines.js';
import type { Job } from '../support/job.js';
import { ended } from '../support/place.js';
import { signalPid } from '../support/processes.js';
import { fastfreeze, fixture, PYTHON } from '../support/stage.js';
import { until } from '../support/until.js';

let fake: GcsFake;
let images = 0;

beforeAll(async () => {
  fake = await GcsFake.start();
  fake.makeBucket('jobs');
});

afterEach(() => {
  fake.fault = () => undefined;
  fake.check();
});

afterAll(() => fake.stop());

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    const it = inTurn(identity);
    test('a job continues elsewhere out of gs:, twice', async () => {
      await withBed(identity, async (bed) => {
        const { options, prefix } = image(`${identity} job ä`);
        const command = ['sh', fixture('shell-loop.sh'), bed.path('stop')];
        let said = '';
        for (const [round, clockOffsetS] of [0, 5000, 90_000].entries()) {
          const job = bed.run(await bed.place({ clockOffsetS }), options, command, { env: fake.env });
          await job.ready(round === 0 ? 'scratch' : 'restored');
          await job.progresses(3);
          if (round < 2) {
            await job.freeze();
            expect(namesOf(prefix)).toContain(`manifest-0000000${round + 1}.json`);
          } else {
            writeFileSync(bed.path('stop'), '');
            expect(await job.ends()).toMatchObject({ code: 0 });
          }
          said += job.stdout;
        }
        checkLines(said);
        expect(fake.openSessions).toBe(0);
      });
    }, 240_000);

    it('memory of many parts comes back as it was, through lost answers and broken reads', async () => {
      await withBed(identity, async (bed) => {
        const { options, prefix } = image(`${identity}-memory`);
        const command = [PYTHON, fixture('memory.py'), bed.path('stop'), '100'];
        // Without compression there are more bytes than one part holds.
        const all = [...options, '--cpu-budget', 'low'];
        const first = bed.run(await bed.place(), all, command, { env: fake.env });
        await first.ready('scratch');
        await first.progresses(2);
        let puts = 0;
        fake.fault = ({ method }) => (method === 'PUT' && ++puts % 3 === 0 ? { kind: 'lose-answer' } : undefined);
        await first.freeze();
        expect(puts).toBeGreaterThan(6);
        expect(largest(prefix)).toBeGreaterThan(16 << 20);

        let gets = 0;
        fake.fault = ({ query }) =>
          query['alt'] === 'media' && ++gets % 5 === 0 ? { kind: 'cut', afterBytes: 1000 } : undefined;
        const second = bed.run(await bed.place(), all, command, { env: fake.env });
        await second.ready('restored');
        expect(gets).toBeGreaterThan(5);
        await second.progresses(2);
        writeFileSync(bed.path('stop'), '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout);
      });
    }, 240_000);

    it('when the service refuses the commit, the job runs on and no manifest is there', async () => {
      await withBed(identity, async (bed) => {
        const { options, prefix } = image(`${identity}-refused`);
        const job = bed.run(await bed.place(), options, loop(bed), { env: fake.env });
        await job.ready('scratch');
        await job.progresses(2);
        fake.fault = ({ method, query }) =>
          method === 'POST' && query['ifGenerationMatch'] === '0' && query['name']?.includes('manifest') === true
            ? { kind: 'answer', status: 403, reason: 'forbidden', message: 'no storage.objects.create access' }
            : undefined;
        const answer = await job.checkpoint();
        expect(answer.code).toBe(170);
        expect(answer.stderr).toMatch(/permission denied.*storage\.objects\.create/);
        fake.fault = () => undefined;
        await job.progresses(3);
        // The image itself stays until it is old: of a commit that failed nobody knows whether it is still on its way.
        expect(namesOf(prefix).filter((name) => name.includes('manifest'))).toEqual([]);
        await job.freeze();
      });
    }, 240_000);
  });
}

const OF_SHARD = ({ query }: SeenRequest): boolean => query['name']?.endsWith('.ffs') === true;
const OF_INDEX = ({ query }: SeenRequest): boolean => query['name']?.endsWith('.ffi') === true;
const OF_LEASE = ({ query }: SeenRequest): boolean => query['name']?.endsWith('/lease.json') === true;

test.each<readonly [string, (request: SeenRequest) => boolean]>([
  ['the image', OF_SHARD],
  ['its index', OF_INDEX],
  ['the lease', (request) => OF_LEASE(request) && fake.requests.some(OF_INDEX)],
])(
  'when the service hangs at %s, the application does not wait for a checkpoint that was called off',
  async (_, at) => {
    await withBed('root', async (bed) => {
      const { job, prefix } = await callOff(bed, at);
      expect(namesOf(prefix).filter((name) => name.includes('manifest'))).toEqual([]);
      await answerAgain();
      await job.freeze();
      expect(namesOf(prefix)).toContain('manifest-00000001.json');
    });
  },
  120_000,
);

test('nor does the next checkpoint wait until a service that hangs has removed what is there of it', async () => {
  await withBed('root', async (bed) => {
    const { job } = await callOff(bed, OF_SHARD);
    await job.commits(['--leave-running', '--image-url', `file:${bed.path('elsewhere')}`], { timeoutMs: 40_000 });
    await answerAgain();
    await job.freeze();
  });
}, 120_000);

test('a bucket that is not there ends the run with what to do', async () => {
  await withBed('root', async (bed) => {
    const job = bed.run(await bed.place(), ['--image-url', 'gs://nowhere/job'], loop(bed), { env: fake.env });
    expect((await job.ends()).code).toBe(171);
    expect(job.stderr).toContain('there is no bucket nowhere');
    expect(job.stderr).toContain('gcloud storage buckets create gs://nowhere');
  });
}, 60_000);

function image(name: string): { readonly options: string[]; readonly prefix: string } {
  const prefix = `${name}-${++images}`;
  return { options: ['--image-url', `gs://jobs/${prefix}`], prefix: `${prefix}/` };
}

const loop = (bed: Bed): string[] => ['sh', fixture('shell-loop.sh'), bed.path('stop')];

const namesOf = (prefix: string): string[] =>
  fake
    .names('jobs')
    .filter((name) => name.startsWith(prefix))
    .map((name) => name.slice(prefix.length));

const largest = (prefix: string): number =>
  Math.max(...namesOf(prefix).map((name) => fake.object('jobs', prefix + name)?.bytes.length ?? 0));

/** Have a client call off its checkpoint once the service hangs, which it does from such a request on; the application then runs on. */
async function callOff(
  bed: Bed,
  isPoint: (request: SeenRequest) => boolean,
): Promise<{ readonly job: Job; readonly prefix: string }> {
  const { options, prefix } = image('hanging');
  const job = bed.run(await bed.place(), options, loop(bed), { env: fake.env });
  await job.ready('scratch');
  await job.progresses(2);
  let hangs = false;
  fake.requests.splice(0);
  fake.fault = (request) => ((hangs ||= isPoint(request)) ? { kind: 'hang' } : undefined);
  const client = job.place.start([...fastfreeze(), 'checkpoint']);
  const end = ended(client, 'the client', () => '');
  await until('the service to hang', () => hangs);
  signalPid(client.pid ?? -1, 'SIGINT');
  await end;
  // Much less than the minutes after which the service is given up.
  await job.progresses(3, 20_000);
  return { job, prefix };
}

async function answerAgain(): Promise<void> {
  await fake.halt();
  fake.fault = () => undefined;
  await fake.restart();
}
