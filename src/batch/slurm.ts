// SPDX-License-Identifier: Apache-2.0
import { asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { emptySpool } from '../engine/spool.js';
import { slurmSource } from '../notice/sources/slurm.js';
import { findingsOf, runAgain } from './slurm-again.js';
import { slurmControl } from './slurm-control.js';
import { dropDirectory, writeDrop } from './slurm-drop.js';
import { type BatchRun, type BatchSystem, type Finding, countOf, keyOf, valueOf } from './system.js';

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
      `by RequeueExit=${code} in slurm.conf, else by scontrol requeue, which fastfreeze calls as its last act; the job must have JobRequeue=1 or --requeue`,
    findings: [],
    ...(jobId === undefined ? {} : ofJob(jobId, env)),
  };
}

/** What Slurm is asked of the job, and asked to do with it. */
function ofJob(jobId: string, env: NodeJS.ProcessEnv): Pick<Required<BatchSystem>, 'begin' | 'inspect' | 'runAgain'> {
  const control = slurmControl(jobId);
  return {
    begin: (run, log) => {
      const directory = dropDirectory(jobId);
      if (directory === undefined) return;
      try {
        writeDrop(directory, { ...run, jobId, startedAtMs: Date.now() }, env);
      } catch (error) {
        log.warn(`${asFastFreezeError(error, 'leave word for the epilog').message}; it will not finish what is cut`);
      }
    },
    inspect: async (code, signal) => {
      try {
        return findingsOf(await control.job(signal), await control.onExit(code, signal), code, jobId);
      } catch (error) {
        if (signal.aborted) return [];
        return [silent(asFastFreezeError(error, 'ask Slurm').message, jobId)];
      }
    },
    runAgain: async (code, { run, log, signal }) => {
      await finishUpload(run, jobId, log);
      return await runAgain({ control, jobId, code, log, signal });
    },
  };
}

/** The next run may be on another node, which has no such spool. Where there is an epilog of ours, it sees to that. */
async function finishUpload(
  { spoolDirectory: directory, imageUrl: url, keep }: BatchRun,
  jobId: string,
  log: Logger,
): Promise<void> {
  if (directory === undefined || dropDirectory(jobId) !== undefined) return;
  try {
    await emptySpool({ directory, url, keep, log: (message) => log.info(message) });
  } catch (error) {
    const { message, hint } = asFastFreezeError(error, 'empty the spool');
    log.error(`${message}. A next run that is not on this machine continues from an older image`, hint);
  }
}

function silent(what: string, jobId: string): Finding {
  return {
    level: 'warn',
    what: `${what}: whether it runs this job again is not known`,
    remedy: `scontrol show job ${jobId}; scontrol must be on PATH in the job`,
  };
}
