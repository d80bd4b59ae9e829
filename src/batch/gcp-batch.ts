// SPDX-License-Identifier: Apache-2.0
import { gceMaintenanceSource, gcePreemptedSource } from '../notice/sources/gce.js';
import { type BatchSystem, countOf, keyOf, valueOf } from './system.js';

/** Google's Batch. The job's UID is never used again, as its name may be; each task has an index. */
export function gcpBatch(env: NodeJS.ProcessEnv): BatchSystem {
  const uid = valueOf(env, 'BATCH_JOB_UID');
  const index = valueOf(env, 'BATCH_TASK_INDEX');
  const retry = countOf(env, 'BATCH_TASK_RETRY_ATTEMPT');
  return {
    name: 'gcp-batch',
    title: 'Google Cloud Batch',
    recognisedBy: ['BATCH_TASK_INDEX', 'BATCH_JOB_UID'].filter((name) => valueOf(env, name) !== undefined),
    key: uid === undefined ? undefined : keyOf('gcp-batch', uid, index ?? '0'),
    taskIndex: index,
    attempt: retry === undefined ? undefined : retry + 1,
    endsAtMs: undefined,
    signalWindowMs: 10_000,
    sources: [gcePreemptedSource({ env }), gceMaintenanceSource({ env })],
    rerun: (code) =>
      `the task must have maxRetryCount and lifecyclePolicies RETRY_TASK with exitCodes [${code}, 50001, 50002, 50003, 50004, 50005, 50006]`,
    findings: [],
  };
}
