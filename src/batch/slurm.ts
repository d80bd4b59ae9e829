// SPDX-License-Identifier: Apache-2.0
import { slurmSource } from '../notice/sources/slurm.js';
import { type BatchSystem, countOf, keyOf, valueOf } from './system.js';

/** Slurm. The job's ID stays over requeues; a task of an array is known by its array's ID and its index. */
export function slurm(env: NodeJS.ProcessEnv): BatchSystem {
  const jobId = valueOf(env, 'SLURM_JOB_ID');
  const array = valueOf(env, 'SLURM_ARRAY_JOB_ID');
  const endSeconds = countOf(env, 'SLURM_JOB_END_TIME');
  const group = valueOf(env, 'SLURM_HET_JOB_ID');
  return {
    name: 'slurm',
    title: 'Slurm',
    recognisedBy: jobId === undefined ? [] : ['SLURM_JOB_ID'],
    key:
      jobId === undefined
        ? undefined
        : keyOf(
            'slurm',
            valueOf(env, 'SLURM_CLUSTER_NAME'),
            group ?? array ?? jobId,
            group === undefined ? valueOf(env, 'SLURM_ARRAY_TASK_ID') : valueOf(env, 'SLURM_HET_JOB_OFFSET'),
          ),
    taskIndex: valueOf(env, 'SLURM_ARRAY_TASK_ID') ?? valueOf(env, 'SLURM_HET_JOB_OFFSET'),
    attempt: jobId === undefined ? undefined : (countOf(env, 'SLURM_RESTART_COUNT') ?? 0) + 1,
    endsAtMs: endSeconds === undefined ? undefined : endSeconds * 1000,
    signalWindowMs: 30_000,
    sources: jobId === undefined ? [] : [slurmSource({ jobId })],
    rerun: (code) =>
      `slurm.conf must have RequeueExit=${code}, and the job JobRequeue=1 or --requeue; else the job script runs scontrol requeue $SLURM_JOB_ID`,
    findings: [],
  };
}
