// SPDX-License-Identifier: Apache-2.0
// Google Batch as its README has it: jobs, tasks in a container and on the machine itself, the metadata server and storage on loopback.
import { expect, test } from '@jest/globals';
import { Site } from '../support/batch-site.js';
import { type Bed, withBed } from '../support/bed.js';
import { GcpBatchFake, type TaskRun } from '../support/gcp-batch-fake.js';
import { GcsFake } from '../support/gcs-fake.js';
import type { Job } from '../support/job.js';
import { checkLines } from '../support/lines.js';
import { type Gce, startGce } from '../support/metadata.js';
import { signalPid } from '../support/processes.js';
import { jobMisfits } from '../support/proto-model.js';
import { FULL } from '../support/random.js';
import { until } from '../support/until.js';

const PREEMPTED = 50001;

test('its README as it stands, in a container: preempted in time, and the service tells of a lost machine', async () => {
  await withBench(async ({ bed, gce, batch, site, run, reports }) => {
    await site.type(site.blocks[0] ?? '');
    const { written, delivered } = site.written('job-container.json');
    expect(written).toBe(delivered);
    const first = await run(1);
    await isListened(gce);
    await first.progresses(3);
    reports.push(PREEMPTED);
    gce.set('preempted', 'TRUE');
    expect(await first.ends()).toMatchObject({ code: 85 });
    expect(first.stderr).toMatch(/Notice: Google preempts this machine; it goes within 30 s/);

    const second = await run(2);
    await second.ready('restored');
    expect(second.stderr).toMatch(
      /of Google Cloud Batch, attempt 2; images go to gs:\/\/bucket\/jobs\/gcp-batch-solve-1-/,
    );
    await second.progresses(3);
    bed.write('stop-0', '');
    expect(await second.ends()).toMatchObject({ code: 0 });
    checkLines(first.stdout + second.stdout);
    await until('the task to succeed', () => batch.tasks[0]?.state === 'SUCCEEDED');
    expect(batch.tasks[0]?.exitCodes).toEqual([PREEMPTED, 0]);
  });
}, 180_000);

test('its README as it stands, on the machine: maintenance, then the job is deleted, and another continues it', async () => {
  await withBench(async ({ bed, gce, batch, site, run }) => {
    await site.type(site.blocks[1] ?? '');
    const { written, delivered } = site.written('job-script.json');
    expect(written).toBe(delivered);
    const first = await run(1);
    await isListened(gce);
    await first.progresses(3);
    gce.set('maintenance-event', 'TERMINATE_ON_HOST_MAINTENANCE');
    expect(await first.ends()).toMatchObject({ code: 85 });
    expect(first.stderr).toMatch(/Notice: Google's maintenance will end this machine/);

    const second = await run(2);
    await second.ready('restored');
    await second.progresses(3);
    batch.delete('solve-2');
    second.signal('SIGTERM');
    expect(await second.ends()).toMatchObject({ code: 85 });
    await until('the task to be over', () => batch.tasks[0]?.state === 'FAILED');

    const [, key = ''] = /Job (\S+)-0 of Google Cloud Batch/u.exec(second.stderr) ?? [];
    const block = site.blocks[2] ?? '';
    expect(block).toContain('--job-id gcp-batch-KEY ');
    const labelled = '--label team=solvers --env COLOR=red --retries 0 --tasks 1 --provisioning STANDARD --vcpus 4';
    await site.type(block.replace('gcp-batch-KEY', key).replace('--vcpus 4', labelled));
    const third = await run(3);
    await third.ready('restored');
    bed.write('stop-0', '');
    expect(await third.ends()).toMatchObject({ code: 0 });
    checkLines(first.stdout + second.stdout + third.stdout);
    await until('the task to succeed', () => batch.tasks[1]?.state === 'SUCCEEDED');
    expect(batch.tasks.map(({ exitCodes }) => exitCodes)).toEqual([[85, 85], [0]]);
  });
}, 180_000);

if (FULL) {
  test('the notice comes too late, and the machine is gone: the next attempt continues from the last checkpoint', async () => {
    await withBench(async ({ bed, gce, batch, site, run, reports }) => {
      // A lease that falls silent soon.
      const options = '-- --lease-ttl 3s --checkpoint-every 3s -- ./solve';
      await site.type((site.blocks[0] ?? '').replace('-- ./solve', options));
      const first = await run(1);
      await first.says(/Checkpoint 1 complete/);
      await isListened(gce);
      await first.progresses(3);
      reports.push(PREEMPTED);
      gce.set('preempted', 'TRUE');
      await first.says(/Notice: Google preempts this machine/);
      // What it had goes with it.
      bed.leavesState = true;
      signalPid(first.pid, 'SIGKILL');

      const second = await run(2);
      await second.ready('restored');
      // Its first line is to be one of the first run's, not already its last.
      await second.progresses(2);
      bed.write('stop-0', '');
      expect(await second.ends()).toMatchObject({ code: 0 });
      await until('the task to succeed', () => batch.tasks[0]?.state === 'SUCCEEDED');
      expect(batch.tasks[0]?.exitCodes).toEqual([PREEMPTED, 0]);
      // What was done since the checkpoint is done again: the second run begins at a line that the first has written.
      const [line = ''] = second.stdout.split('\n', 1);
      const kept = first.stdout.slice(0, first.stdout.indexOf(`${line}\n`));
      expect(kept).not.toBe('');
      checkLines(kept + second.stdout);
    });
  }, 180_000);
}

test('a job with every option is one that Google Batch takes', async () => {
  await withBed('user', async (bed) => {
    const place = await bed.place();
    const where = ['--image', 'registry/job:1', '--image-base', 'gs://bucket/jobs', '--memory', '16G', '--vcpus', '4'];
    const machine = [
      '--machine-type',
      'n2-standard-4',
      '--min-cpu-platform',
      'Intel Ice Lake',
      '--provisioning',
      'SPOT',
    ];
    const more = ['--service-account', 'job@project.iam.gserviceaccount.com', '--time-limit', '2h', '--retries', '3'];
    more.push('--tasks', '5', '--env', 'COLOR=red', '--label', 'team=solvers', '--job-id', 'mine');
    const words = [
      'batch',
      'job',
      'gcp',
      ...where,
      ...machine,
      ...more,
      '--',
      '--checkpoint-every',
      'auto',
      '--',
      'job',
    ];
    const printed = await place.fastfreeze(words);
    expect(printed.code).toBe(0);
    expect(jobMisfits(JSON.parse(printed.stdout))).toEqual([]);
    // Without a container: the README's way, above. Each is for `gcloud batch jobs submit --config`.
    const neither = await place.fastfreeze(['batch', 'job', 'gcp', '--directory', '/opt/solve', ...where, 'job']);
    expect(neither).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/one of --image and --directory/) as unknown,
    });
  });
}, 60_000);

interface Bench {
  readonly bed: Bed;
  readonly gce: Gce;
  readonly batch: GcpBatchFake;
  readonly site: Site;
  /** The run of a task of that number, from 1, of all that were started. */
  readonly run: (number: number) => Promise<Job>;
  /** What the service says of the next runs, instead of their own exit codes. */
  readonly reports: number[];
}

/** A user's folder, and the service, which runs each task at a place of its own. */
async function withBench(body: (bench: Bench) => Promise<void>): Promise<void> {
  const storage = await GcsFake.start();
  storage.makeBucket('bucket');
  const gce = await startGce();
  try {
    await withBed('root', async (bed) => {
      const started: Job[] = [];
      const reports: number[] = [];
      const runTask = async ({ run, env }: TaskRun): Promise<number> => {
        // A new machine: nobody is about to take it away.
        gce.set('preempted', 'FALSE');
        gce.set('maintenance-event', 'NONE');
        const around = { ...storage.env, GCE_METADATA_HOST: gce.url, ...env };
        const job =
          run.kind === 'container'
            ? await site.startContainer(run.words, around)
            : await site.startScript(run.text, around);
        started.push(job);
        const { code } = await job.ends(150_000);
        return reports.shift() ?? code;
      };
      const batch = await GcpBatchFake.start(runTask);
      const site = new Site(bed, await bed.place(), 'gcp-batch', { FF_TEST_GCP_BATCH: batch.url });
      const run = async (number: number): Promise<Job> => await until(`run ${number}`, () => started[number - 1]);
      try {
        await body({ bed, gce, batch, site, run, reports });
      } finally {
        batch.halt();
        for (const job of started) job.dispose();
        await batch.stop();
      }
    });
    storage.check();
  } finally {
    await gce.close();
    await storage.stop();
  }
}

/** The metadata server holds both questions back: what comes now is news. */
async function isListened(gce: Gce): Promise<void> {
  const held = (name: string): boolean => gce.asked.some((one) => one.includes(`/${name}?wait_for_change=true`));
  await until('the metadata server to be asked', () => held('preempted') && held('maintenance-event'));
}
