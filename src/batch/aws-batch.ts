// SPDX-License-Identifier: Apache-2.0
import { imdsSource } from '../notice/sources/imds.js';
import { type BatchSystem, type Finding, countOf, keyOf, valueOf } from './system.js';

/** AWS Batch on EC2. The job's ID stays over attempts; a child of an array is `PARENT:INDEX`, a node of several `JOB#NODE`. */
export function awsBatch(env: NodeJS.ProcessEnv): BatchSystem {
  const jobId = valueOf(env, 'AWS_BATCH_JOB_ID');
  return {
    name: 'aws-batch',
    title: 'AWS Batch',
    recognisedBy: jobId === undefined ? [] : ['AWS_BATCH_JOB_ID'],
    key: jobId === undefined ? undefined : keyOf('aws-batch', jobId),
    taskIndex: valueOf(env, 'AWS_BATCH_JOB_ARRAY_INDEX') ?? valueOf(env, 'AWS_BATCH_JOB_NODE_INDEX'),
    attempt: countOf(env, 'AWS_BATCH_JOB_ATTEMPT'),
    endsAtMs: undefined,
    signalWindowMs: 30_000,
    sources: [imdsSource({ env })],
    rerun: (code) =>
      `the job definition's retryStrategy must have {"onExitCode":"${code}","action":"RETRY"} and {"onStatusReason":"Host EC2*","action":"RETRY"}`,
    findings: findings(env),
  };
}

/** Why there is no Fargate, for whoever asks for it. */
export const NO_FARGATE = 'Fargate gives no container the rights that CRIU needs';

function findings(env: NodeJS.ProcessEnv): Finding[] {
  if (!(env['AWS_EXECUTION_ENV'] ?? '').includes('FARGATE')) return [];
  return [
    {
      level: 'fail',
      what: `this is Fargate, and ${NO_FARGATE}`,
      remedy: 'use a compute environment of EC2 instances, and "privileged": true',
    },
  ];
}
