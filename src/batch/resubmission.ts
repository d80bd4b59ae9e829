// SPDX-License-Identifier: Apache-2.0
import type { JobDetail, SubmitJobCommandInput } from '@aws-sdk/client-batch';
import { AWS_MOST_ATTEMPTS } from './aws-definition.js';
import type { BatchSystem, Finding } from './system.js';

/** Counts how often a job was submitted again: it travels from each to the next. */
export const RESUBMITTED = 'FASTFREEZE_RESUBMITTED';

export interface ResubmissionRequest {
  /** As DescribeJobs tells of this job. */
  readonly job: JobDetail;
  /** The number of this attempt, from 1. */
  readonly attempt: number;
  /** Under which the next job finds the image; undefined where the command line names its place. */
  readonly key: string | undefined;
  /** How often the job may be submitted again in all, and how often it was. */
  readonly most: number;
  readonly done: number;
}

export type Resubmission =
  { readonly submit: SubmitJobCommandInput } | { readonly isNeeded: boolean; readonly reason: string };

/**
 * The job that continues this one after its last attempt, or why there is none: `isNeeded` when nothing else will. It is
 * this job once more, with all that it was submitted with, but alone: a child of an array does not take its siblings along.
 */
export function resubmission({ job, attempt, key, most, done }: ResubmissionRequest): Resubmission {
  const attempts = job.retryStrategy?.attempts ?? 1;
  if (attempt < attempts)
    return { isNeeded: false, reason: `AWS Batch makes ${attempts} attempts, this is ${attempt}` };
  const wanted = isUnwanted(job);
  if (wanted !== undefined) return { isNeeded: false, reason: wanted };
  const reason = isOtherKind(job);
  if (reason !== undefined) return { isNeeded: true, reason };
  if (done >= most) {
    return {
      isNeeded: true,
      reason: done === 0 ? 'that is not wished' : `it was ${times(done)} already, as often as it may`,
    };
  }
  const { jobName, jobQueue, jobDefinition } = job;
  if (jobName === undefined || jobQueue === undefined || jobDefinition === undefined) {
    return { isNeeded: true, reason: 'AWS Batch does not say how it was submitted' };
  }
  return {
    submit: {
      jobName,
      jobQueue,
      jobDefinition,
      ...submittedWith(job),
      containerOverrides: overrides(job, key, done + 1),
    },
  };
}

/** Somebody wanted it to end, so that it must not come back. */
function isUnwanted({ isTerminated, isCancelled }: JobDetail): string | undefined {
  if (isTerminated === true) return 'it was terminated on request';
  return isCancelled === true ? 'it was cancelled' : undefined;
}

function isOtherKind({
  nodeDetails,
  nodeProperties,
  eksProperties,
  ecsProperties,
  container,
}: JobDetail): string | undefined {
  if (nodeDetails !== undefined || nodeProperties !== undefined)
    return 'it has several nodes, and one of them alone cannot be submitted';
  if (eksProperties !== undefined) return 'it runs on Kubernetes, which is not provided for';
  if (ecsProperties !== undefined) return 'it has several containers, which is not provided for';
  return container === undefined ? 'AWS Batch does not tell of its container' : undefined;
}

function submittedWith(job: JobDetail): Partial<SubmitJobCommandInput> {
  const { parameters, shareIdentifier, schedulingPriority, timeout, retryStrategy, propagateTags } = job;
  // Those of AWS cannot be given.
  const tags = Object.fromEntries(Object.entries(job.tags ?? {}).filter(([name]) => !name.startsWith('aws:')));
  return {
    ...(parameters === undefined ? {} : { parameters }),
    ...(shareIdentifier === undefined ? {} : { shareIdentifier }),
    ...(shareIdentifier === undefined || schedulingPriority === undefined
      ? {}
      : { schedulingPriorityOverride: schedulingPriority }),
    ...(timeout === undefined ? {} : { timeout }),
    ...(retryStrategy === undefined ? {} : { retryStrategy }),
    ...(propagateTags === undefined ? {} : { propagateTags }),
    ...(Object.keys(tags).length === 0 ? {} : { tags }),
  };
}

function overrides(
  { container }: JobDetail,
  key: string | undefined,
  done: number,
): NonNullable<SubmitJobCommandInput['containerOverrides']> {
  const { command, resourceRequirements, environment = [] } = container ?? {};
  const ours = { ...(key === undefined ? {} : { FASTFREEZE_JOB_ID: key }), [RESUBMITTED]: String(done) };
  // Names that AWS Batch keeps for itself are refused.
  const theirs = environment.filter(({ name = '' }) => !(name in ours) && !name.startsWith('AWS_BATCH_'));
  return {
    ...(command === undefined ? {} : { command }),
    ...(resourceRequirements === undefined || resourceRequirements.length === 0 ? {} : { resourceRequirements }),
    environment: [...theirs, ...Object.entries(ours).map(([name, value]) => ({ name, value }))],
  };
}

/** What to say before the job starts: of the last attempt, and of a wish that nobody hears. */
export function resubmitFindings({ name, title, attempt = 1 }: BatchSystem, most: number): Finding[] {
  if (name !== 'aws-batch') {
    if (most === 0) return [];
    return [
      {
        level: 'warn',
        what: `--resubmit is for AWS Batch; ${title} will not be asked to run the job again after its last attempt`,
        remedy: 'leave out --resubmit and FASTFREEZE_RESUBMIT',
      },
    ];
  }
  if (most > 0 || attempt < AWS_MOST_ATTEMPTS) return [];
  return [
    {
      level: 'warn',
      what: `this is attempt ${attempt}, and AWS Batch makes no more than ${AWS_MOST_ATTEMPTS} of a job`,
      remedy:
        'submit it again with FASTFREEZE_JOB_ID set as the log says: it continues. --resubmit N does that by itself',
    },
  ];
}

function times(count: number): string {
  return count === 1 ? 'submitted again once' : `submitted again ${count} times`;
}
