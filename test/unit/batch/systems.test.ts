// SPDX-License-Identifier: Apache-2.0
/* What batch systems tell a job of itself: keys that stay over attempts and tell tasks apart, and exit codes. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FastFreezeError } from '../../../src/base/errors.js';
import { chooseSystem, jobKey, recognise } from '../../../src/batch/recognise.js';
import { setUp, withInspection } from '../../../src/batch/set-up.js';
import { exitCodeOf } from '../../../src/cli/batch.js';
import { CHECKPOINTED, INTERRUPTED } from '../../../src/engine/config.js';
import { ASSUMED_PACE } from '../../../src/engine/pace.js';
import { estimate, fitsWindow } from '../../../src/notice/planner.js';
import { jobUrl } from '../../../src/store/job-url.js';

type Env = Readonly<Record<string, string>>;

const keyIn = (env: Env): string | undefined => jobKey(undefined, recognise(env), env);

describe('recognising', () => {
  const KEYS: readonly (readonly [string, Env, string, string | undefined])[] = [
    ['a job', { SLURM_JOB_ID: '7', SLURM_CLUSTER_NAME: 'c 1' }, 'slurm', 'slurm-c-1-7'],
    [
      'a task of an array',
      { SLURM_JOB_ID: '9', SLURM_ARRAY_JOB_ID: '7', SLURM_ARRAY_TASK_ID: '2' },
      'slurm',
      'slurm-7-2',
    ],
    [
      'a part of a heterogeneous job',
      { SLURM_JOB_ID: '8', SLURM_HET_JOB_ID: '7', SLURM_HET_JOB_OFFSET: '1' },
      'slurm',
      'slurm-7-1',
    ],
    ['a job', { AWS_BATCH_JOB_ID: 'a-b' }, 'aws-batch', 'aws-batch-a-b'],
    [
      'a child of an array',
      { AWS_BATCH_JOB_ID: 'a-b:3', AWS_BATCH_JOB_ARRAY_INDEX: '3' },
      'aws-batch',
      'aws-batch-a-b-3',
    ],
    ['a node of several', { AWS_BATCH_JOB_ID: 'a-b#1', AWS_BATCH_JOB_NODE_INDEX: '1' }, 'aws-batch', 'aws-batch-a-b-1'],
    ['AWS Batch on Kubernetes', { AWS_BATCH_JOB_ID: 'a', KUBERNETES_SERVICE_HOST: 'h' }, 'aws-batch', 'aws-batch-a'],
    ['a task', { BATCH_JOB_UID: 'u', BATCH_TASK_INDEX: '4' }, 'gcp-batch', 'gcp-batch-u-4'],
    ['a container without the UID', { BATCH_TASK_INDEX: '4' }, 'gcp-batch', undefined],
    ['a pod', { KUBERNETES_SERVICE_HOST: 'h', JOB_COMPLETION_INDEX: '5' }, 'kubernetes', undefined],
    ['nothing', { SLURM_JOB_ID: '' }, 'none', undefined],
  ];

  test.each(KEYS)('%s of %j: %s, %s', (_what, env, name, key) => {
    expect([recognise(env).name, keyIn(env)]).toEqual([name, key]);
    // Chosen by name, it is the same.
    expect(jobKey(undefined, chooseSystem(recognise(env).name, env), env)).toBe(key);
  });

  test('a name of one’s own gets the index of the task, unless the command line gives it', () => {
    for (const [, env, , key] of KEYS) {
      const index = chooseSystem(recognise(env).name, env).taskIndex;
      const named = { ...env, FASTFREEZE_JOB_ID: 'mine' };
      expect(keyIn(named)).toBe(index === undefined ? 'mine' : `mine-${index}`);
      expect(jobKey('exactly', recognise(named), named)).toBe('exactly');
      if (key !== undefined && index !== undefined) expect(key.endsWith(`-${index}`)).toBe(true);
    }
  });

  test('attempts count from 1, however the system counts', () => {
    const first: Env[] = [{ SLURM_JOB_ID: '7' }, { AWS_BATCH_JOB_ID: 'a', AWS_BATCH_JOB_ATTEMPT: '1' }];
    first.push({ BATCH_JOB_UID: 'u', BATCH_TASK_RETRY_ATTEMPT: '0' });
    expect(first.map((env) => recognise(env).attempt)).toEqual([1, 1, 1]);
    expect(recognise({ SLURM_JOB_ID: '7', SLURM_RESTART_COUNT: '2' }).attempt).toBe(3);
  });

  test('whatever a system calls a job, its key is a name that a store takes', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: 'binary' }), fc.string({ unit: 'binary' }), (id, index) => {
        for (const env of [
          { SLURM_JOB_ID: id, SLURM_ARRAY_TASK_ID: index },
          { AWS_BATCH_JOB_ID: id },
          { BATCH_JOB_UID: id, BATCH_TASK_INDEX: index },
        ]) {
          expect(jobUrl('s3://b/jobs', keyIn(env) ?? '')).toMatch(/^s3:\/\/b\/jobs\/[A-Za-z0-9._-]+$/);
        }
      }),
    );
  });
});

describe('the set-up', () => {
  const request = (env: Env) => ({
    system: recognise(env),
    env,
    nowMs: 1_000_000,
    signals: [],
    moreSources: [],
    requeueExitCode: 85,
  });

  test('the earlier of two limits counts', () => {
    const slurm = { SLURM_JOB_ID: '7', SLURM_JOB_END_TIME: '2000' };
    expect(setUp(request(slurm)).endsAtMs).toBe(2_000_000);
    expect(setUp({ ...request(slurm), timeLimitMs: 5_000 }).endsAtMs).toBe(1_005_000);
    expect(setUp({ ...request(slurm), timeLimitMs: 5_000_000 }).endsAtMs).toBe(2_000_000);
    expect(setUp(request({})).endsAtMs).toBeUndefined();
  });

  test('Slurm’s limit is its sources’ to follow; a fixed one only where they are not asked', () => {
    const slurm = { SLURM_JOB_ID: '7', SLURM_JOB_END_TIME: '2000' };
    const names = (more: object): string[] =>
      setUp({ ...request(slurm), ...more }).sources.map(({ name }) => name.replace(/ of job.*/, ''));
    expect(names({})).toEqual(["Slurm's end and preemption"]);
    expect(names({ timeLimitMs: 5_000 })).toEqual(['the time limit', "Slurm's end and preemption"]);
    expect(names({ sources: [] })).toEqual(['the time limit']);
  });

  test('what scontrol says of the end goes before the environment, and not before a limit of one’s own', () => {
    const slurm = { SLURM_JOB_ID: '7', SLURM_JOB_END_TIME: '2000' };
    const end = (more: object, endsAtMs?: number | null): number | undefined =>
      withInspection(setUp({ ...request(slurm), ...more }), {
        findings: [],
        ...(endsAtMs === undefined ? {} : { endsAtMs }),
      }).endsAtMs;
    expect([end({}), end({}, 9_000_000), end({}, 1_500_000), end({}, null)]).toEqual([
      ...[2_000_000, 9_000_000, 1_500_000, undefined],
    ]);
    const own = { timeLimitMs: 5_000 };
    expect([end(own), end(own, 9_000_000), end(own, null)]).toEqual([1_005_000, 1_005_000, 1_005_000]);
    expect(end({ sources: [] }, 9_000_000)).toBe(2_000_000);
  });

  test('Slurm: several nodes are explained, several tasks of one srun refused', () => {
    const of = (env: Env): string[] =>
      recognise({ SLURM_JOB_ID: '7', ...env }).findings.map(({ level, what }) => `${level} ${what}`);
    expect(of({ SLURM_JOB_NUM_NODES: '1', SLURM_STEP_NUM_TASKS: '1' })).toEqual([]);
    expect(of({ SLURM_JOB_NUM_NODES: '2' })).toEqual([expect.stringMatching(/^warn the job has 2 nodes: .* srun/)]);
    expect(of({ SLURM_JOB_NUM_NODES: '2', SLURM_STEP_NUM_TASKS: '8' })).toEqual([
      expect.stringMatching(/^fail this is one of 8 tasks of an srun/),
    ]);
    const { against } = recognise({ SLURM_JOB_ID: '7' });
    expect([['/usr/bin/srun', './solve'], ['./solve', 'srun'], []].map((command) => against?.(command)?.level)).toEqual(
      [...['fail', undefined, undefined]],
    );
  });

  test('how long a notice leaves: thirty seconds at Google, two minutes at EC2, what a signal leaves of each', () => {
    const windows = (env: Env): (number | undefined)[] => {
      const { sources, signalWindowMs } = setUp(request(env));
      return [...sources.map(({ windowMs }) => windowMs), signalWindowMs];
    };
    expect(windows({ BATCH_JOB_UID: 'u', BATCH_TASK_INDEX: '0' })).toEqual([30_000, 60_000, 10_000]);
    expect(windows({ AWS_BATCH_JOB_ID: 'a' })).toEqual([118_000, 30_000]);
    expect(windows({ SLURM_JOB_ID: '7' })).toEqual([undefined, 30_000]);
    // What of memory fits, by docs/planner.md: 830 MiB, and 17 GiB where 1 GB/s was measured.
    const measured = { ...ASSUMED_PACE, captureBytesPerSecond: 1e9, uploadBytesPerSecond: 1e9, samples: 1 };
    const fits = (mib: number, pace = ASSUMED_PACE): boolean => fitsWindow(30_000, estimate(mib * 2 ** 20, pace));
    expect([fits(820), fits(840), fits(15_500, measured), fits(17_500, measured)]).toEqual([true, false, true, false]);
  });

  test('what is missing is said, and what could go wrong', () => {
    const levels = (env: Env, more: { imageUrl?: string } = {}): string[] =>
      setUp({ ...request(env), ...more }).findings.map(({ level, what }) => `${level} ${what}`);
    expect(levels({})).toEqual([
      expect.stringMatching(/^fail nothing says where/),
      expect.stringMatching(/^fail .*names this job/),
    ]);
    expect(levels({}, { imageUrl: 'file:/x' })).toEqual([]);
    const slurm = { SLURM_JOB_ID: '7', FASTFREEZE_IMAGE_BASE: '/shared' };
    expect(levels(slurm)).toEqual([expect.stringMatching(/^warn \/shared\/slurm-7 is a directory/)]);
    const aws = { AWS_BATCH_JOB_ID: 'a', FASTFREEZE_IMAGE_BASE: 's3://b/j' };
    expect(levels(aws)).toEqual([expect.stringMatching(/^warn the time limit is not known/)]);
  });
});

describe('the exit code', () => {
  const aborted = new FastFreezeError({ code: 'aborted', op: 'x', reason: 'y' });
  const broken = new FastFreezeError({ code: 'image', op: 'x', reason: 'y' });

  test.each([
    ['frozen', { exitCode: 137, reason: CHECKPOINTED }, 85],
    ['told to leave, and ended', { exitCode: 0, reason: INTERRUPTED }, 85],
    ['killed by SIGKILL', { exitCode: 137, reason: 'Application caught fatal signal SIGKILL' }, 137],
    ['ended', { exitCode: 3, reason: 'Application exited' }, 3],
    ['ended with the code that means "run again"', { exitCode: 85, reason: 'Application exited' }, 1],
    ['never begun', { exitCode: 170, error: aborted }, 85],
    ['not restored', { exitCode: 171, error: broken }, 171],
  ])('of a job that was %s', (_what, outcome, code) => {
    expect(exitCodeOf(outcome, 85)).toBe(code);
  });
});
