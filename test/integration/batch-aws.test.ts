// SPDX-License-Identifier: Apache-2.0
// AWS Batch as its README has it: definitions, attempts in containers of their own, IMDSv2 and S3 on loopback, and jobs that submit themselves again.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type Attempt, type AttemptEnd, AwsBatchFake } from '../support/aws-batch-fake.js';
import { Site, signalContainer } from '../support/batch-site.js';
import { type Bed, withBed } from '../support/bed.js';
import { type Cloud, startCloud } from '../support/clouds.js';
import type { Job } from '../support/job.js';
import { checkLines } from '../support/lines.js';
import { type Imds, startImds } from '../support/metadata.js';
import { hasMoto } from '../support/moto.js';
import type { Answer } from '../support/place.js';
import { signalPid } from '../support/processes.js';
import { FULL } from '../support/random.js';
import { until } from '../support/until.js';

const ACTION = 'GET /latest/meta-data/spot/instance-action';
/** Asked only after an answer to the question before. */
const REBALANCE = 'GET /latest/meta-data/events/recommendations/rebalance';

let cloud: Cloud;
let imds: Imds;

if (hasMoto) {
  beforeEach(async () => {
    cloud = await startCloud('s3');
    imds = await startImds();
    const made = await fetch(`${cloud.directEnv['AWS_ENDPOINT_URL_S3'] ?? ''}/bucket`, { method: 'PUT' });
    expect(made.status).toBe(200);
  }, 60_000);

  afterEach(async () => {
    await imds.close();
    await cloud.stop();
  });

  test('its README as it stands: a definition, a job, and attempts that continue each other', async () => {
    await withBed('root', async (bed) => {
      await withBatch(bed, async ({ batch, site, attempt }) => {
        imds.tokens = 'lost';
        await site.type(site.blocks[0] ?? '');
        const { written, delivered } = site.written('job-definition.json');
        expect(written).toBe(delivered);

        // Behind one hop too many; then somebody sets the limit.
        const first = await attempt(1);
        await first.says(/gives no token in time\. .* HttpPutResponseHopLimit to 2/);
        imds.tokens = 'given';
        await isListened();
        await first.progresses(3);
        imds.action = interruption();
        expect(await first.ends()).toMatchObject({ code: 85 });
        expect(first.stderr).toMatch(/Notice: EC2 will terminate this Spot instance at/);

        // The token ends before its time.
        const second = await attempt(2);
        await second.ready('restored');
        expect(second.stderr).toMatch(/of AWS Batch, attempt 2; images go to s3:\/\/bucket\/jobs\/aws-batch-/);
        await isListened();
        imds.expireTokens();
        imds.rebalance = '{"noticeTime": "2026-11-25T12:00:00Z"}';
        await second.says(/Checkpoint 2 complete/);
        await second.progresses(3);
        signalContainer(second, 'SIGTERM');
        expect(await second.ends()).toMatchObject({ code: 85 });

        const third = await attempt(3);
        await third.ready('restored');
        bed.write('stop-0', '');
        expect(await third.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout + third.stdout);
        await until('the job to succeed', () => batch.jobs[0]?.status === 'SUCCEEDED');
      });
    });
  }, 180_000);

  test('after its last attempt a child of an array goes on as a job of its own, but not against anybody’s will', async () => {
    await withBed('root', async (bed) => {
      await withBatch(bed, async ({ batch, site, attempt, lose }) => {
        const words = ['--attempts 1', '--resubmit 1', '--tag team=solvers', '--env COLOR=red', '--vcpus 2'];
        const whole = site.blocks[0] ?? '';
        // A lease that falls silent soon, since a host will be lost.
        const edited = whole
          .replace('--vcpus 4', words.join(' '))
          .replace('-- ./solve', '-- --lease-ttl 3s -- ./solve')
          .replace('--job-queue spot', '--job-queue spot --array-properties size=2');
        await site.type(edited);
        const children = [await attempt(1), await attempt(2)];
        await Promise.all(children.map((job) => job.progresses(3)));
        const zeroth = children.find((job) => childOf(job) === '0');
        const wanted = children.find((job) => childOf(job) === '1');
        if (zeroth === undefined || wanted === undefined) throw new Error('the children are not known');

        // `aws batch terminate-job`.
        batch.terminate(batch.jobs.find(({ jobId }) => jobId?.endsWith(':1') === true)?.jobId ?? '');
        signalContainer(wanted, 'SIGTERM');
        expect(await wanted.ends()).toMatchObject({ code: 85 });
        expect(wanted.stderr).toMatch(/The job is not submitted again: it was terminated on request/);

        signalContainer(zeroth, 'SIGTERM');
        expect(await zeroth.ends()).toMatchObject({ code: 85 });
        const again = await attempt(3);
        const [, , next] = batch.jobs;
        expect(zeroth.stderr).toContain(`Submitted again as job ${next?.jobId ?? ''} (1 of 1)`);
        expect(next).toMatchObject({ jobName: 'solve', tags: { team: 'solvers' }, retryStrategy: { attempts: 1 } });
        const given = next?.container?.environment ?? [];
        const environment: Record<string, string> = Object.fromEntries(
          given.map(({ name = '', value = '' }): [string, string] => [name, value]),
        );
        const key = environment['FASTFREEZE_JOB_ID'] ?? '';
        expect(key).toMatch(/^aws-batch-\S+-0$/);
        expect(environment).toMatchObject({ COLOR: 'red', FASTFREEZE_RESUBMITTED: '1', FASTFREEZE_RESUBMIT: '1' });

        // The notice comes too late: nothing can be stored any more, and then the host is gone.
        await again.ready('restored');
        await isListened();
        cloud.proxy.refuse();
        imds.action = interruption();
        await again.says(/Notice: EC2 will terminate this Spot instance at/);
        // What a host had goes with it.
        bed.leavesState = true;
        lose(again);
        await until('the job to fail', () => next?.status === 'FAILED');

        // By hand, as the README says.
        await cloud.heal();
        const byHand = site.blocks.find((block) => block.includes('FASTFREEZE_JOB_ID')) ?? '';
        expect(byHand).toContain('"aws-batch-KEY"}');
        let between = '';
        if (FULL) {
          // Its limit comes, and its role may not ask for another job.
          batch.denied = ['describejobs'];
          const limit = `"${key}"},{"name":"FASTFREEZE_TIME_LIMIT","value":"12"}`;
          await site.type(byHand.replace('"aws-batch-KEY"}', limit));
          const limited = await attempt(4);
          await limited.ready('restored');
          expect(await limited.ends()).toMatchObject({ code: 85 });
          const said = limited.stderr;
          expect(said).toMatch(/Checkpointing application to s3:\S+-0 \(the time limit is reached at/);
          expect(said).toMatch(/cannot submit the job again: .*not authorized to perform: batch:describejobs\n/);
          expect(said).toMatch(
            /Try: submit the job again with FASTFREEZE_JOB_ID=\S+-0\. The job role needs batch:DescribeJobs/,
          );
          expect(batch.asked.filter((one) => one === 'submitjob')).toHaveLength(3);
          between = limited.stdout;
        }
        await site.type(byHand.replace('aws-batch-KEY', key));
        const last = await attempt(FULL ? 5 : 4);
        await last.ready('restored');
        bed.write('stop-0', '');
        expect(await last.ends()).toMatchObject({ code: 0 });
        // What the lost host did is done again.
        checkLines(zeroth.stdout + between + last.stdout);
      });
    });
  }, 240_000);
} else test.skip('AWS Batch with S3, against moto', () => undefined);

test('a definition with every option is one that AWS Batch takes; Fargate is refused with the reason', async () => {
  await withBed('user', async (bed) => {
    const batch = await AwsBatchFake.start(() => Promise.resolve(0));
    try {
      const place = await bed.place();
      const print = async (...words: string[]): Promise<Answer> =>
        await place.fastfreeze([
          'batch',
          'job-definition',
          'aws',
          ...words,
          '--',
          '--checkpoint-every',
          'auto',
          '--',
          'job',
        ]);
      const needed = [
        '--name',
        'all',
        '--image',
        'registry/job:1',
        '--image-base',
        's3://bucket/jobs',
        '--memory',
        '16G',
      ];
      const role = 'arn:aws:iam::123456789012:role/job';
      const more = [
        '--vcpus',
        '8',
        '--region',
        'eu-central-1',
        '--role',
        role,
        '--time-limit',
        '2h',
        '--attempts',
        '3',
      ];
      more.push('--resubmit', '2', '--env', 'COLOR=red', '--tag', 'team=solvers', '--platform', 'EC2');
      const printed = await print(...needed, ...more);
      expect(printed).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/^Warning: registry\/job:1 is no digest/) as unknown,
      });
      expect(printed.stdout).toContain('"command": ["--checkpoint-every", "auto", "--", "job"]');
      const site = new Site(bed, place, 'aws-batch', { AWS_ENDPOINT_URL_BATCH: batch.url });
      writeFileSync(join(site.folder, 'all.json'), printed.stdout);
      await site.type('aws batch register-job-definition --cli-input-json file://all.json');
      expect(batch.asked).toEqual(['registerjobdefinition']);
      expect(await print(...needed, '--platform', 'FARGATE')).toMatchObject({
        code: 2,
        stdout: '',
        stderr: expect.stringMatching(
          /^Error: .* FARGATE: Fargate gives no container the rights that CRIU needs\nTry: /,
        ) as unknown,
      });
    } finally {
      await batch.stop();
    }
  });
}, 60_000);

interface BatchBench {
  readonly batch: AwsBatchFake;
  readonly site: Site;
  /** The attempt of that number, from 1, of all that were started. */
  readonly attempt: (number: number) => Promise<Job>;
  /** Takes the host away under an attempt. */
  readonly lose: (job: Job) => void;
}

/** A user's folder, and the service, which runs each attempt at a place of its own. */
async function withBatch(bed: Bed, body: (bench: BatchBench) => Promise<void>): Promise<void> {
  const started: Job[] = [];
  const lost = new Set<Job>();
  const run = async ({ words, env }: Attempt): Promise<AttemptEnd> => {
    // A new host: nobody is about to take it away.
    imds.action = undefined;
    imds.rebalance = undefined;
    const around = {
      ...cloud.jobEnv(30),
      AWS_ENDPOINT_URL_BATCH: batch.url,
      AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.url,
    };
    const job = await site.startContainer(words, { ...around, ...env });
    started.push(job);
    const { code } = await job.ends(150_000);
    return lost.has(job) ? 'host lost' : code;
  };
  const batch = await AwsBatchFake.start(run);
  const site = new Site(bed, await bed.place(), 'aws-batch', { AWS_ENDPOINT_URL_BATCH: batch.url });
  const attempt = async (number: number): Promise<Job> => await until(`attempt ${number}`, () => started[number - 1]);
  const lose = (job: Job): void => {
    lost.add(job);
    signalPid(job.pid, 'SIGKILL');
  };
  try {
    await body({ batch, site, attempt, lose });
  } finally {
    batch.halt();
    for (const job of started) job.dispose();
    await batch.stop();
  }
}

function childOf(job: Job): string | undefined {
  return /aws-batch-\S+-(\d)\n/u.exec(job.stderr)?.[1];
}

function interruption(): string {
  return JSON.stringify({ action: 'terminate', time: new Date(Date.now() + 120_000).toISOString() });
}

/** The metadata service has been asked, with a token, and has answered that there is nothing: what comes now is news. */
async function isListened(): Promise<void> {
  const before = imds.asked.length;
  await until('IMDS to be asked', () => imds.asked.slice(before).includes(REBALANCE));
  expect(imds.asked).toContain(ACTION);
}
