// SPDX-License-Identifier: Apache-2.0
// `batch run` and `batch explain`: notices, exit codes, retries, with real freezes and metadata servers on loopback.
import { describe, expect, test } from '@jest/globals';
import { type Bed, withBed } from '../support/bed.js';
import { generations } from '../support/image.js';
import type { Job } from '../support/job.js';
import { checkLines } from '../support/lines.js';
import { startAzure, startGce, startImds } from '../support/metadata.js';
import type { Place } from '../support/place.js';
import { signalPid } from '../support/processes.js';
import { fixture } from '../support/stage.js';
import { until } from '../support/until.js';

const loop = (bed: Bed): string[] => ['sh', fixture('shell-loop.sh'), bed.path('stop')];

function batch(
  bed: Bed,
  place: Place,
  options: string[],
  command: string[],
  env: Record<string, string> = {},
  within: string[] = [],
): Job {
  return bed.start(place, ['batch', 'run', ...options, '--', ...command], { env, within });
}

/** As the entrypoint of a container is. */
const PID_1 = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child'];

describe('batch run', () => {
  test('as PID 1, a file asks to leave: frozen, 85; the same command continues; a finished job is not run again', async () => {
    await withBed('root', async (bed) => {
      const notice = bed.path('work', 'leave');
      const options = ['--adapter', 'none', '--image-base', `file:${bed.path('images')}`, '--job-id', 'a job'];
      // Less than a checkpoint is assumed to need before any was measured.
      options.push('--notice-file', notice, '--notice-window', '5s');
      // Its own exit code is the one that means "run again", which must not be said for it.
      const command = ['sh', '-c', `sh ${loop(bed).slice(1).join(' ')}; exit 85`];
      const first = batch(bed, await bed.place(), options, command, {}, PID_1);
      await first.progresses(3);
      bed.write('work/leave', '');
      expect(await first.ends()).toMatchObject({ code: 85 });
      expect(first.stderr).toMatch(
        /Warning: a notice leaves 5\.0 s, and .* falling back to checkpoints every \d+ s or so/,
      );
      expect(first.stderr).toMatch(/\[ff\.batch\] .*Notice: the file \S+ asks for it\n/);
      expect(generations(bed.path('images', 'a job'))).toEqual([1]);

      const second = batch(bed, await bed.place(), options, command, {}, PID_1);
      await second.ready('restored');
      await second.progresses(3);
      bed.write('stop', '');
      expect(await second.ends()).toMatchObject({ code: 1 });
      expect(second.stderr).toMatch(/own exit code is 85, which means "run again"; exiting with 1\n/);
      checkLines(first.stdout + second.stdout);

      const third = batch(bed, await bed.place(), options, command);
      expect(await third.ends()).toMatchObject({ code: 1 });
      expect(third.stdout).toBe('');
      expect(third.stderr).toMatch(/This job finished with exit_code=85 at [^;]+\n/);

      const other = batch(bed, await bed.place(), options, ['true']);
      expect(await other.ends()).toMatchObject({ code: 171 });
      expect(other.stderr).toMatch(/cannot run true: another command of the same job has finished, with exit_code=85/);
    });
  }, 90_000);

  test('an application that the signal has reached as well, and that ends in order, has not finished', async () => {
    await withBed('user', async (bed) => {
      const options = ['--adapter', 'none', '--image-base', `file:${bed.path('images')}`, '--job-id', 'told'];
      const command = ['sh', '-c', 'trap "exit 0" TERM; echo told; while :; do sleep 0.05; done'];
      const first = batch(bed, await bed.place(), options, command);
      await first.prints(/told/);
      const app = bed.survivors().find((one) => one.command.startsWith('sh -c trap'));
      if (app === undefined) throw new Error('no application to tell');
      // It is told first, and has ended before we hear of anything.
      first.signal('SIGSTOP');
      signalPid(app.pid, 'SIGTERM');
      await until('the end of the application', () => !bed.survivors().some(({ pid }) => pid === app.pid));
      first.signal('SIGTERM');
      first.signal('SIGCONT');
      expect(await first.ends()).toMatchObject({ code: 85 });

      const second = batch(bed, await bed.place(), options, command);
      await second.ready();
      second.signal('SIGTERM');
      expect((await second.ends()).code).toBe(85);
    });
  }, 90_000);

  test('AWS Batch: an interruption announced by IMDSv2, then a SIGTERM; three attempts make one output', async () => {
    const imds = await startImds();
    try {
      await withBed('user', async (bed) => {
        const attempt = async (number: number): Promise<Job> => {
          const env = {
            AWS_BATCH_JOB_ID: '6ba7b810-9dad-11d1-80b4-00c04fd430c8:3',
            AWS_BATCH_JOB_ATTEMPT: String(number),
            AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.url,
            FASTFREEZE_IMAGE_BASE: `file:${bed.path('images')}`,
          };
          return batch(bed, await bed.place(), [], loop(bed), env);
        };
        const first = await attempt(1);
        await first.progresses(3);
        imds.rebalance = '{"noticeTime": "2026-11-25T12:00:00Z"}';
        // A recommendation saves the job, which runs on.
        await first.says(/Checkpoint 1 complete/);
        await first.progresses(3);
        imds.action = JSON.stringify({ action: 'terminate', time: new Date(Date.now() + 120_000).toISOString() });
        expect(await first.ends()).toMatchObject({ code: 85 });
        expect(first.stderr).toMatch(/Notice: EC2 will terminate this Spot instance at/);
        expect(bed.list('images')).toEqual(['aws-batch-6ba7b810-9dad-11d1-80b4-00c04fd430c8-3']);

        imds.action = undefined;
        imds.rebalance = undefined;
        imds.expireTokens();
        const second = await attempt(2);
        await second.ready('restored');
        expect(second.stderr).toMatch(/Job aws-batch-\S+-3 of AWS Batch, attempt 2; images go to file:/);
        await second.progresses(3);
        second.signal('SIGTERM');
        expect(await second.ends()).toMatchObject({ code: 85 });

        const third = await attempt(3);
        await third.ready('restored');
        await third.progresses(3);
        bed.write('stop', '');
        expect(await third.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout + third.stdout);
        expect(imds.asked.some((one) => one === 'GET /latest/meta-data/spot/instance-action')).toBe(true);
      });
    } finally {
      await imds.close();
    }
  }, 120_000);

  test('Azure, asked for by name: the eviction of a Spot machine is announced', async () => {
    const azure = await startAzure();
    try {
      await withBed('root', async (bed) => {
        const env = { FF_AZURE_METADATA_HOST: azure.url, FASTFREEZE_JOB_ID: 'on-azure' };
        const options = ['--image-base', `file:${bed.path('images')}`, '--notice-from', 'azure'];
        const job = batch(bed, await bed.place(), options, loop(bed), env);
        await job.progresses(2);
        const event = { EventId: 'e', EventType: 'Preempt', Resources: ['vm_1'], EventStatus: 'Scheduled' };
        azure.events = [{ ...event, NotBefore: new Date(Date.now() + 30_000).toUTCString() }];
        expect(await job.ends()).toMatchObject({ code: 85 });
        expect(job.stderr).toMatch(/Notice: Azure will preempt this machine at /);
        expect(generations(bed.path('images', 'on-azure'))).toEqual([1]);
      });
    } finally {
      await azure.close();
    }
  }, 60_000);

  test('Google Batch: the time limit is kept, with an exit code of the user’s', async () => {
    const gce = await startGce();
    try {
      await withBed('root', async (bed) => {
        const env = {
          BATCH_JOB_UID: 'job-uid',
          BATCH_TASK_INDEX: '0',
          GCE_METADATA_HOST: gce.url,
          FASTFREEZE_TIME_LIMIT: '12s',
        };
        const options = ['--image-base', `file:${bed.path('images')}`, '--requeue-exit-code', '99'];
        const first = batch(bed, await bed.place(), options, loop(bed), env);
        await first.ready('scratch');
        expect(await first.ends()).toMatchObject({ code: 99 });
        expect(first.stderr).toMatch(
          /Checkpointing application to file:\S+gcp-batch-job-uid-0 \(the time limit is reached at/,
        );
        bed.write('stop', '');
        const second = batch(bed, await bed.place(), options, loop(bed), { ...env, FASTFREEZE_TIME_LIMIT: '1h' });
        expect(await second.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout);
      });
    } finally {
      await gce.close();
    }
  }, 90_000);

  test('with a spool the upload counts too, as it was measured, and is done when the job leaves', async () => {
    await withBed('root', async (bed) => {
      const notice = bed.path('work', 'leave');
      const options = ['--adapter', 'none', '--image-base', `file:${bed.path('images')}`, '--job-id', 'x'];
      options.push('--spool', bed.directory('spool'), '--notice-file', notice, '--notice-window', '7s');
      const first = batch(bed, await bed.place(), options, loop(bed));
      // What is assumed of the checkpoint alone would fit.
      await first.says(/Warning: a notice leaves 7\.0 s, and a checkpoint of this application needs 8\.\d s/);
      await first.progresses(2);
      bed.write('work/leave', '');
      expect(await first.ends()).toMatchObject({ code: 85 });
      expect(generations(bed.path('images', 'x'))).toEqual([1]);

      const place = await bed.place();
      const second = batch(bed, place, options, loop(bed));
      await second.ready('restored');
      expect(await place.fastfreeze(['checkpoint', '--leave-running'])).toMatchObject({ code: 0 });
      const { jobs } = JSON.parse((await place.fastfreeze(['status', '--json'])).stdout) as {
        jobs: { pace: { copying?: { fixedMs: number; bytesPerSecond: number } } }[];
      };
      const measuredMs = jobs[0]?.pace.copying?.fixedMs ?? Infinity;
      expect(measuredMs).toBeGreaterThan(0);
      // A machine as slow as was assumed is told so again.
      if (measuredMs < 500) expect(second.stderr).not.toMatch(/a notice leaves/);
      bed.write('stop', '');
      expect(await second.ends()).toMatchObject({ code: 0 });
      checkLines(first.stdout + second.stdout);
    });
  }, 60_000);

  test('a signal before the application is ready: never begun, and to be run again', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const held = bed.run(place, ['--image-url', `file:${bed.path('images', 'x')}`], loop(bed));
      await held.progresses(1);
      const options = ['--adapter', 'none', '--image-base', `file:${bed.path('images')}`, '--job-id', 'x'];
      const waiting = batch(bed, place, [...options, '--container', 'other'], loop(bed));
      await waiting.says(/waiting up to \d+ s for its lease/);
      waiting.signal('SIGTERM');
      expect(await waiting.ends()).toMatchObject({ code: 85 });
      expect(waiting.stderr).toMatch(/SIGTERM came first/);
      bed.write('stop', '');
      expect(await held.ends()).toMatchObject({ code: 0 });
    });
  }, 60_000);
});

describe('batch explain', () => {
  const explain = async (place: Place, words: string[], env: Record<string, string>): Promise<unknown> => {
    const answer = await place.fastfreeze(['batch', 'explain', ...words, '--json'], { env });
    const told = JSON.parse(answer.stdout) as { ok: boolean };
    expect(answer.code).toBe(told.ok ? 0 : 170);
    return told;
  };

  test('what it recognises, the key, the deadline, the notices, and what is missing', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const base = { FASTFREEZE_IMAGE_BASE: 's3://bucket/jobs' };
      expect(await explain(place, [], {})).toMatchObject({
        ok: false,
        system: 'none',
        key: null,
        findings: [
          { level: 'fail', remedy: expect.stringContaining('FASTFREEZE_IMAGE_BASE') as unknown },
          { level: 'fail' },
        ],
      });
      const slurm = {
        SLURM_JOB_ID: '12',
        SLURM_ARRAY_JOB_ID: '10',
        SLURM_ARRAY_TASK_ID: '2',
        SLURM_RESTART_COUNT: '1',
      };
      expect(await explain(place, [], { ...base, ...slurm, SLURM_JOB_END_TIME: '1795608000' })).toMatchObject({
        ok: true,
        system: 'slurm',
        key: 'slurm-10-2',
        imageUrl: 's3://bucket/jobs/slurm-10-2',
        attempt: 2,
        endsAt: new Date(1_795_608_000_000).toISOString(),
        spool: null,
        requeueExitCode: 85,
      });
      const spool = ['--spool', '/scratch', '--adapter', 'aws-batch'];
      expect(await explain(place, spool, { ...base, ...slurm, FASTFREEZE_JOB_ID: 'x' })).toMatchObject({
        spool: { directory: '/scratch', uploadsAfterwards: false },
      });
      const fargate = { AWS_BATCH_JOB_ID: 'j', AWS_BATCH_JOB_ATTEMPT: '10', AWS_EXECUTION_ENV: 'AWS_ECS_FARGATE' };
      expect(await explain(place, ['--time-limit', '1h'], { ...base, ...fargate })).toMatchObject({
        ok: false,
        system: 'aws-batch',
        attempt: 10,
        findings: [{ level: 'fail', what: expect.stringContaining('Fargate') as unknown }, { level: 'warn' }],
      });
      const refused = await place.fastfreeze(['batch', 'run', 'true'], { env: { ...base, ...fargate } });
      expect(refused).toMatchObject({ code: 170, stderr: expect.stringMatching(/^Error: .*Fargate/m) as unknown });
      const pod = { KUBERNETES_SERVICE_HOST: '10.0.0.1', FASTFREEZE_JOB_ID: 'uid', JOB_COMPLETION_INDEX: '4' };
      const words = ['--notice-from', 'ec2,azure', '--notice-on', 'usr2', '--notice-window', '45s'];
      words.push('--notice-command', 'test -e /leave', '--notice-file', '/leave');
      expect(await explain(place, words, { ...base, ...pod })).toMatchObject({
        system: 'kubernetes',
        key: 'uid-4',
        notices: [
          { name: expect.stringContaining('EC2') as unknown, windowMs: 118_000 },
          { name: expect.stringContaining('Azure') as unknown },
          { name: 'the file /leave', windowMs: null },
          { name: 'the command test -e /leave', windowMs: null },
          { name: 'SIGUSR2', windowMs: 45_000 },
        ],
      });
      // A key of one's own goes before the system's; an adapter that is named before what the environment says.
      const own = { ...base, ...pod, FASTFREEZE_JOB_ID: 'mine' };
      expect(await explain(place, ['--adapter', 'none'], own)).toMatchObject({
        system: 'none',
        imageUrl: 's3://bucket/jobs/mine',
      });
      const text = await place.fastfreeze(['batch', 'explain'], { env: { ...base, ...slurm } });
      expect(text.stdout).toMatch(/^system +Slurm \(SLURM_JOB_ID\)\njob key +slurm-10-2\n/);
      expect(text.stdout).toMatch(/^exit code +85: run again/m);
    });
  }, 60_000);
});
