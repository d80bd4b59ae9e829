// SPDX-License-Identifier: Apache-2.0
/* Whether and how a job of Slurm's is run again; what it leaves for the epilog. */
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createLogger } from '../../../src/base/log.js';
import { type AgainOptions, decideAgain, findingsOf, runAgain } from '../../../src/batch/slurm-again.js';
import {
  type SlurmControl,
  type SlurmJob,
  readHasEpilog,
  readOnExit,
  readSlurmJob,
  slurmControl,
  slurmName,
} from '../../../src/batch/slurm-control.js';
import { dropDirectory, readDrop, writeDrop } from '../../../src/batch/slurm-drop.js';

const RUNNING: SlurmJob = {
  ...{ name: '10_3', state: 'RUNNING', reason: 'None', isPreempted: false, mayRequeue: true, isBatch: true },
  endsAtMs: Date.UTC(2026, 10, 27, 1, 0, 0),
};

describe('what scontrol says', () => {
  const RECORDS =
    'JobId=12 ArrayJobId=10 ArrayTaskId=3 JobName=a JobState=RUNNING Reason=None Requeue=1 EndTime=2026-11-27T01:00:00 PreemptTime=None BatchFlag=1\n' +
    'JobId=120 JobName=b JobState=COMPLETING Reason=TimeLimit Requeue=0 EndTime=Unknown PreemptTime=2026-11-27T00:00:00 BatchFlag=0\n';

  test('of this job, whatever else is there', () => {
    expect(readSlurmJob(RECORDS, '12')).toEqual(RUNNING);
    const other = { state: 'COMPLETING', reason: 'TimeLimit', isPreempted: true, mayRequeue: false, isBatch: false };
    expect(readSlurmJob(RECORDS, '120')).toEqual({ name: '120', ...other, endsAtMs: undefined });
    expect(() => readSlurmJob(RECORDS, '1')).toThrow(/no record of this job/);
  });

  test.each([
    ['RequeueExit             = 85\nRequeueExitHold         = (null)\n', 'requeue'],
    ['RequeueExit             = 1,80-90\n', 'requeue'],
    ['RequeueExit             = 8,850,86-90\n', 'nothing'],
    ['RequeueExit             = (null)\nRequeueExitHold         = 85\n', 'hold'],
    ['', 'nothing'],
  ])('of its configuration: %j', (config, expected) => {
    expect(readOnExit(config, 85)).toBe(expected);
  });

  test.each([
    ['Epilog                  = (null)\nEpilogMsgTime           = 2000 usec\n', false],
    ['Epilog                  = /opt/epilog\n', true],
    ['Epilog[0]               = /opt/one\nEpilog[1]               = /opt/two\n', true],
    // Of other kinds, and of the tasks.
    ['EpilogSlurmctld         = /opt/a\nTaskEpilog              = /opt/b\nSrunEpilog              = /opt/c\n', false],
  ])('of its epilog: %j', (config, expected) => {
    expect(readHasEpilog(config)).toBe(expected);
  });
});

describe('what scontrol is told', () => {
  const path = process.env['PATH'] ?? '';
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'ff-scontrol-'));
    const record =
      'JobId=7 ArrayJobId=7 ArrayTaskId=4 JobState=COMPLETING Reason=TimeLimit Requeue=1 EndTime=Unknown BatchFlag=1';
    const other = 'JobId=99 JobState=RUNNING Reason=None Requeue=1 EndTime=Unknown BatchFlag=1';
    const script = `#!/bin/sh\necho "$*" >>${folder}/told\nprintf '%s\\n' '${record}' '${other}'\n`;
    writeFileSync(join(folder, 'scontrol'), script, { mode: 0o755 });
    process.env['PATH'] = `${folder}:${path}`;
  });
  afterAll(() => {
    process.env['PATH'] = path;
    rmSync(folder, { recursive: true });
  });

  test.each([
    // In the epilog the array's variables have gone; its last task has the number of all.
    ['7', '7', '7_4'],
    // What was submitted in a task of an array has the task's variables.
    ['99', '7_4', '99'],
  ])('to requeue job %s, which was taken for %s, means %s alone', async (jobId, given, name) => {
    const { signal } = new AbortController();
    const control = slurmControl(jobId, given);
    await control.job(signal);
    await control.requeue(signal);
    const told = readFileSync(join(folder, 'told'), 'utf8').trim().split('\n');
    expect(told.slice(-2)).toEqual([`show job -o ${jobId}`, `requeue ${name}`]);
  });
});

describe('running a job again', () => {
  test.each([
    ['runs, and the code is enough', {}, 'requeue', true, 'exit code'],
    ['runs, and is held by the code, which is what the site wants', {}, 'hold', true, 'exit code'],
    ['runs, and nothing looks at the code', {}, 'nothing', true, 'scontrol'],
    ['runs in a script that may end with another code', {}, 'requeue', false, 'scontrol'],
    ['was cancelled', { state: 'COMPLETING' }, 'requeue', true, 'nobody'],
    ['was cancelled before Slurm began to end it', { state: 'CANCELLED' }, 'nothing', true, 'nobody'],
    ['is being preempted', { state: 'COMPLETING', isPreempted: true }, 'nothing', true, 'nobody'],
    ['has a time of grace', { isPreempted: true }, 'nothing', true, 'scontrol'],
    ['has reached its limit', { state: 'COMPLETING', reason: 'TimeLimit' }, 'requeue', true, 'scontrol'],
    ['was put back by Slurm', { state: 'PENDING', reason: 'BeginTime' }, 'nothing', true, 'nobody'],
    ['has --no-requeue', { mayRequeue: false }, 'requeue', true, 'nobody'],
    ['is of salloc', { isBatch: false }, 'nothing', true, 'nobody'],
  ] as const)('that %s', (_what, job, onExit, isBatchProcess, by) => {
    expect(decideAgain({ ...RUNNING, ...job }, onExit, isBatchProcess).by).toBe(by);
  });

  test('what cannot be run again is told from the start', () => {
    expect(findingsOf(RUNNING, 'nothing', 85, '7')).toEqual([]);
    const texts = (job: Partial<SlurmJob>, onExit: 'hold' | 'nothing' = 'nothing'): string[] =>
      findingsOf({ ...RUNNING, ...job }, onExit, 85, '7').map(({ what, remedy }) => `${what}: ${remedy}`);
    expect(texts({ mayRequeue: false })).toEqual([expect.stringMatching(/--no-requeue.*: .*update JobId=7 Requeue=1/)]);
    expect(texts({ isBatch: false })).toEqual([expect.stringMatching(/no batch job.*: submit it with sbatch/)]);
    expect(texts({}, 'hold')).toEqual([expect.stringMatching(/RequeueExitHold/)]);
  });

  const requeues: SlurmControl['config'] = () => Promise.resolve({ onExit: 'requeue', hasEpilog: false });

  /** What was asked of the controller, and said to the user. */
  async function act(
    control: Partial<SlurmControl>,
    hasSaved = true,
  ): Promise<{ asked: string[]; said: string; code: number }> {
    const asked: string[] = [];
    let said = '';
    const whole: SlurmControl = {
      job: () => Promise.resolve(RUNNING),
      config: () => Promise.resolve({ onExit: 'nothing', hasEpilog: false }),
      requeue: () => {
        asked.push('requeue');
        return Promise.resolve();
      },
      ...control,
    };
    const log = createLogger({ command: 'batch', verbosity: 0, write: (line) => (said += line) });
    const { signal } = new AbortController();
    const options: AgainOptions = {
      ...{ control: whole, jobId: '7', code: 85, log, signal, retryMs: 1 },
      hasSaved: () => Promise.resolve(hasSaved),
    };
    const code = await runAgain({ ...options, isBatchProcess: true });
    return { asked, said, code };
  }

  test('a controller that is away for a moment is asked again; one that stays away leaves the image, and a command', async () => {
    let times = 0;
    const job = (): Promise<SlurmJob> =>
      (times += 1) < 3 ? Promise.reject(new Error('Unable to contact slurm controller')) : Promise.resolve(RUNNING);
    expect(await act({ job })).toMatchObject({ asked: ['requeue'] });
    const never = await act({ job: () => Promise.reject(new Error('Unable to contact slurm controller')) });
    expect(never.asked).toEqual([]);
    expect(never.said).toMatch(/Error: .*Unable to contact slurm controller\. Its image is kept/);
  });

  test('nothing is asked of Slurm for a job that was cancelled, or that the exit code requeues', async () => {
    const cancelled = await act({ job: () => Promise.resolve({ ...RUNNING, state: 'COMPLETING' }) });
    expect(cancelled).toMatchObject({
      asked: [],
      said: expect.stringMatching(/not requeued by us: it was cancelled/) as unknown,
    });
    expect(await act({ config: requeues })).toMatchObject({ asked: [], code: 85 });
  });

  test('at the time limit only what has an image of this attempt: else its limit would be used up again and again', async () => {
    const job = (): Promise<SlurmJob> => Promise.resolve({ ...RUNNING, state: 'COMPLETING', reason: 'TimeLimit' });
    expect(await act({ job })).toMatchObject({ asked: ['requeue'], code: 85 });
    const said = expect.stringMatching(/time limit without an image of this attempt: it is not requeued/) as unknown;
    expect(await act({ job }, false)).toMatchObject({ asked: [], code: 85, said });
    expect(await act({}, false)).toMatchObject({ asked: ['requeue'] });
  });

  test('one task of an array, not all: the plain number of its last task is the array’s', () => {
    const array = { SLURM_ARRAY_JOB_ID: '7', SLURM_ARRAY_TASK_ID: '4' };
    expect(slurmName(array, '7')).toBe('7_4');
    expect(slurmName({}, '7')).toBe('7');
  });

  test('a job of --no-requeue leaves with a code that RequeueExit does not have', async () => {
    const job = (): Promise<SlurmJob> => Promise.resolve({ ...RUNNING, mayRequeue: false });
    expect(await act({ job })).toMatchObject({ asked: [], code: 85 });
    expect(await act({ job, config: requeues })).toMatchObject({ asked: [], code: 137 });
  });
});

describe('what a job leaves for the epilog', () => {
  const run = { jobName: 'j', imageUrl: 's3://b/j', keep: 2, spoolDirectory: '/scratch' };
  let base: string;
  beforeAll(() => {
    base = mkdtempSync(join(tmpdir(), 'ff-drop-'));
  });
  afterAll(() => {
    rmSync(base, { recursive: true });
  });

  test('is what the store needs, and no passphrase; the next attempt writes it anew', () => {
    const path = join(base, '7');
    mkdirSync(path, { mode: 0o700 });
    expect(dropDirectory('7', base)).toBe(path);
    const env = { AWS_SECRET_ACCESS_KEY: 'k', FF_PASSPHRASE: 'p', FF_S3_ENDPOINT: 'e', HOME: '/h', OTHER: 'o' };
    writeDrop(path, { ...run, jobId: '7', startedAtMs: 1 }, {});
    writeDrop(path, { ...run, jobId: '7', startedAtMs: 2 }, env);
    const environment = { AWS_SECRET_ACCESS_KEY: 'k', FF_S3_ENDPOINT: 'e', HOME: '/h' };
    expect(readDrop(path)).toEqual({ ...run, jobId: '7', startedAtMs: 2, environment });
    writeFileSync(join(path, 'job.json'), '{"jobId":7}');
    expect(() => readDrop(path)).toThrow(/not what batch run writes/);
  });

  test('goes into no folder that others can enter, and is not looked for where there is none', () => {
    expect(dropDirectory('8', base)).toBeUndefined();
    mkdirSync(join(base, '9'));
    chmodSync(join(base, '9'), 0o755);
    expect(dropDirectory('9', base)).toBeUndefined();
    expect(readDrop(base)).toBeUndefined();
  });
});
