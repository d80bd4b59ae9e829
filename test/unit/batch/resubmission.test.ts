// SPDX-License-Identifier: Apache-2.0
/* When a job at AWS Batch is submitted again, and as what. */
import { describe, expect, test } from '@jest/globals';
import { type JobDetail, SubmitJobRequest$ } from '@aws-sdk/client-batch';
import { recognise } from '../../../src/batch/recognise.js';
import { resubmission, resubmitFindings } from '../../../src/batch/resubmission.js';
import { misfits } from '../../support/sdk-model.js';

const JOB: JobDetail = {
  jobId: 'j',
  jobName: 'solve',
  jobQueue: 'arn:aws:batch:eu-central-1:1:job-queue/spot',
  jobDefinition: 'arn:aws:batch:eu-central-1:1:job-definition/solve:3',
  status: 'RUNNING',
  startedAt: 1,
  parameters: { size: '5' },
  retryStrategy: { attempts: 3, evaluateOnExit: [{ onExitCode: '85', action: 'RETRY' }] },
  timeout: { attemptDurationSeconds: 3600 },
  shareIdentifier: 'team',
  schedulingPriority: 7,
  propagateTags: true,
  tags: { owner: 'ann', 'aws:batch:x': 'y' },
  container: {
    image: 'i',
    command: ['./solve', 'Ref::size'],
    resourceRequirements: [{ type: 'VCPU', value: '4' }],
    environment: [
      { name: 'FASTFREEZE_JOB_ID', value: 'old' },
      { name: 'FASTFREEZE_IMAGE_BASE', value: 's3://b/j' },
      { name: 'AWS_BATCH_JOB_ID', value: 'j' },
    ],
  },
};
const LAST = { job: JOB, attempt: 3, key: 'aws-batch-j', most: 2, done: 1 };

test('after the last attempt it is the same job once more, with the key of its image and one more of the count', () => {
  const next = resubmission(LAST);
  if (!('submit' in next)) throw new Error(next.reason);
  expect(misfits(SubmitJobRequest$, JSON.parse(JSON.stringify(next.submit)))).toEqual([]);
  expect(next.submit).toEqual({
    jobName: 'solve',
    jobQueue: JOB.jobQueue,
    jobDefinition: JOB.jobDefinition,
    parameters: JOB.parameters,
    shareIdentifier: 'team',
    schedulingPriorityOverride: 7,
    timeout: JOB.timeout,
    retryStrategy: JOB.retryStrategy,
    propagateTags: true,
    tags: { owner: 'ann' },
    containerOverrides: {
      command: ['./solve', 'Ref::size'],
      resourceRequirements: [{ type: 'VCPU', value: '4' }],
      environment: [
        { name: 'FASTFREEZE_IMAGE_BASE', value: 's3://b/j' },
        { name: 'FASTFREEZE_JOB_ID', value: 'aws-batch-j' },
        { name: 'FASTFREEZE_RESUBMITTED', value: '2' },
      ],
    },
  });
});

test('a job that was submitted with nothing of its own is so again', () => {
  const job = { ...JOB, parameters: undefined, retryStrategy: undefined, timeout: undefined, propagateTags: undefined };
  const bare: JobDetail = { ...job, shareIdentifier: undefined, tags: undefined, container: {} };
  const next = resubmission({ job: bare, attempt: 1, key: undefined, most: 1, done: 0 });
  if (!('submit' in next)) throw new Error(next.reason);
  const { jobName, jobQueue, jobDefinition } = JOB;
  const environment = [{ name: 'FASTFREEZE_RESUBMITTED', value: '1' }];
  expect(next.submit).toEqual({ jobName, jobQueue, jobDefinition, containerOverrides: { environment } });
});

describe('it is not submitted', () => {
  const CASES: readonly (readonly [string, Partial<typeof LAST>, boolean, RegExp])[] = [
    ['an attempt before the last', { attempt: 2 }, false, /makes 3 attempts, this is 2/],
    ['one that somebody ended', { job: { ...JOB, isTerminated: true } }, false, /terminated on request/],
    ['one that was cancelled', { job: { ...JOB, isCancelled: true } }, false, /cancelled/],
    ['as often as it may, once', { most: 1 }, true, /submitted again once already, as often as it may/],
    ['as often as it may', { done: 5 }, true, /submitted again 5 times already/],
    ['a node of several', { job: { ...JOB, nodeDetails: { nodeIndex: 1 } } }, true, /several nodes/],
    ['a pod', { job: { ...JOB, eksProperties: {} } }, true, /Kubernetes/],
    ['several containers', { job: { ...JOB, ecsProperties: { taskProperties: [] } } }, true, /several containers/],
    ['no container', { job: { ...JOB, container: undefined } }, true, /does not tell of its container/],
    ['no queue', { job: { ...JOB, jobQueue: undefined } }, true, /does not say how/],
  ];
  test.each(CASES)('%s', (_what, change, isNeeded, reason) => {
    expect(resubmission({ ...LAST, ...change })).toEqual({
      isNeeded,
      reason: expect.stringMatching(reason) as unknown,
    });
  });
});

test('what is said before the job starts', () => {
  const said = (env: Record<string, string>, most: number): string[] =>
    resubmitFindings(recognise(env), most).map(({ what, remedy }) => `${what}: ${remedy}`);
  expect(said({ AWS_BATCH_JOB_ID: 'j', AWS_BATCH_JOB_ATTEMPT: '9' }, 0)).toEqual([]);
  const tenth = { AWS_BATCH_JOB_ID: 'j', AWS_BATCH_JOB_ATTEMPT: '10' };
  expect(said(tenth, 0)).toEqual([expect.stringMatching(/attempt 10, and AWS Batch makes no more .*--resubmit N/)]);
  expect(said(tenth, 1)).toEqual([]);
  expect(said({ SLURM_JOB_ID: '7' }, 1)).toEqual([expect.stringMatching(/for AWS Batch; Slurm will not/)]);
  expect(said({ SLURM_JOB_ID: '7' }, 0)).toEqual([]);
});
