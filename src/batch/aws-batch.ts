// SPDX-License-Identifier: Apache-2.0
import { imdsSource } from '../notice/sources/imds.js';
import { type BatchSystem, type Finding, countOf, keyOf, valueOf } from './system.js';

/** The most that a job definition can ask for. */
const MOST_ATTEMPTS = 10;

/** AWS Batch on EC2. The job's ID stays over attempts; a child of an array is `PARENT:INDEX`, a node of several `JOB#NODE`. */
export function awsBatch(env: NodeJS.ProcessEnv): BatchSystem {
  const jobId = valueOf(env, 'AWS_BATCH_JOB_ID');
  const attempt = countOf(env, 'AWS_BATCH_JOB_ATTEMPT');
  return {
    name: 'aws-batch',
    title: 'AWS Batch',
    recognisedBy: jobId === undefined ? [] : ['AWS_BATCH_JOB_ID'],
    key: jobId === undefined ? undefined : keyOf('aws-batch', jobId),
    taskIndex: valueOf(env, 'AWS_BATCH_JOB_ARRAY_INDEX') ?? valueOf(env, 'AWS_BATCH_JOB_NODE_INDEX'),
    attempt,
    endsAtMs: undefined,
    signalWindowMs: 30_000,
    sources: [imdsSource({ env })],
    rerun: (code) =>
      `the job definition's retryStrategy must have {"onExitCode":"${code}","action":"RETRY"} and {"onStatusReason":"Host EC2*","action":"RETRY"}`,
    findings: findings(env, attempt),
  };
}

function findings(env: NodeJS.ProcessEnv, attempt: number | undefined): Finding[] {
  const found: Finding[] = [];
  if ((env['AWS_EXECUTION_ENV'] ?? '').includes('FARGATE')) {
    found.push({
      level: 'fail',
      what: 'this is Fargate, which gives no container the rights that CRIU needs',
      remedy: 'use a compute environment of EC2 instances, and "privileged": true',
    });
  }
  if (attempt !== undefined && attempt >= MOST_ATTEMPTS) {
    found.push({
      level: 'warn',
      what: `this is attempt ${attempt}, and AWS Batch makes no more than ${MOST_ATTEMPTS} of a job`,
      remedy: 'submit it again with FASTFREEZE_JOB_ID set as the log says: it continues',
    });
  }
  return found;
}
