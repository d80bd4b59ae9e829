// SPDX-License-Identifier: Apache-2.0
import { basename } from 'node:path';
import { asFastFreezeError } from '../base/errors.js';
import { slurmSource } from '../notice/sources/slurm.js';
import { hasNewImage } from './new-image.js';
import { findingsOf, isBatchProcess, runAgain } from './slurm-again.js';
import { slurmControl, slurmName } from './slurm-control.js';
import { dropDirectory, writeDrop } from './slurm-drop.js';
import { type BatchSystem, type Finding, countOf, keyOf, valueOf } from './system.js';

/** Slurm. The job's ID stays over requeues; a task of an array is known by its array's ID and its index. */
export function slurm(env: NodeJS.ProcessEnv): BatchSystem {
  const jobId = valueOf(env, 'SLURM_JOB_ID');
  const array = valueOf(env, 'SLURM_ARRAY_JOB_ID');
  const endSeconds = countOf(env, 'SLURM_JOB_END_TIME');
  const endsAtMs = endSeconds === undefined ? undefined : endSeconds * 1000;
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
    endsAtMs,
    signalWindowMs: 30_000,
    sources: jobId === undefined ? [] : [slurmSource({ jobId, endsAtMs })],
    rerun: (code) =>
      `by RequeueExit=${code} in slurm.conf, else by scontrol requeue, which fastfreeze calls as its last act; the job must have JobRequeue=1 or --requeue`,
    findings: spreadFindings(env),
    against: againstSrun,
    ...(jobId === undefined ? {} : ofJob(jobId, env)),
  };
}

/** What Slurm is asked of the job, and asked to do with it. */
function ofJob(
  jobId: string,
  env: NodeJS.ProcessEnv,
): Pick<Required<BatchSystem>, 'begin' | 'inspect' | 'uploadsAfterwards' | 'runAgain'> {
  const name = slurmName(env, jobId);
  const control = slurmControl(jobId, name);
  const startedAtMs = Date.now();
  let hasEpilog = false;
  let hasFailedToTell = false;
  return {
    begin: (run, log) => {
      const directory = dropDirectory(jobId);
      if (directory === undefined) return;
      try {
        writeDrop(directory, { ...run, jobId, startedAtMs }, env);
      } catch (error) {
        hasFailedToTell = true;
        log.warn(`${asFastFreezeError(error, 'leave word for the epilog').message}; it will not finish what is cut`);
      }
    },
    inspect: async (code, signal) => {
      try {
        const config = await control.config(code, signal);
        ({ hasEpilog } = config);
        const job = await control.job(signal);
        const prologOnly = dropDirectory(jobId) === undefined || hasEpilog ? [] : [withoutEpilog()];
        const findings = [...findingsOf(job, config.onExit, code, name), ...prologOnly];
        return { findings, endsAtMs: job.endsAtMs ?? null };
      } catch (error) {
        if (signal.aborted) return { findings: [] };
        return { findings: [silent(asFastFreezeError(error, 'ask Slurm').message, name)] };
      }
    },
    // The folder is our prolog's, which goes with our epilog. slurm.conf has the last word on that: without one nobody would come.
    uploadsAfterwards: () => hasEpilog && !hasFailedToTell && dropDirectory(jobId) !== undefined,
    runAgain: async (code, { run, log, signal, isFrozen }) => {
      const hasSaved = async (): Promise<boolean> => isFrozen || (await hasNewImage(run.imageUrl, startedAtMs));
      return await runAgain({ control, jobId: name, code, log, signal, hasSaved });
    },
  };
}

/** What does not fit into one process tree on one node. */
function spreadFindings(env: NodeJS.ProcessEnv): Finding[] {
  // `sbatch` passes on what it was called with: in the batch script itself this may be a step's that it was typed in.
  const tasks = isBatchProcess() ? 1 : (countOf(env, 'SLURM_STEP_NUM_TASKS') ?? 1);
  if (tasks > 1) {
    return [
      {
        level: 'fail',
        what: `this is one of ${tasks} tasks of an srun: each would be frozen by itself, and the first that is has Slurm end the others`,
        remedy: 'call batch run in the batch script, once, for one process tree; an array for many',
      },
    ];
  }
  const nodes = countOf(env, 'SLURM_JOB_NUM_NODES') ?? 1;
  if (nodes < 2) return [];
  return [
    {
      level: 'warn',
      what: `the job has ${nodes} nodes: what runs on this one is frozen, what srun starts, here or on the others, is not and ends with the job's requeue`,
      remedy: 'sbatch --nodes=1',
    },
  ];
}

function againstSrun([program = '']: readonly string[]): Finding | undefined {
  if (basename(program) !== 'srun') return undefined;
  return {
    level: 'fail',
    what: "srun would be frozen without what it starts: its tasks are processes of Slurm's daemons, and end with the job's requeue",
    remedy: 'leave srun out: fastfreeze batch run -- COMMAND, one process tree on one node',
  };
}

function withoutEpilog(): Finding {
  return {
    level: 'warn',
    what: 'slurm.conf has the Prolog of fastfreeze and no Epilog: what it makes for each job stays on the node, and an upload is waited for',
    remedy: 'the administrator adds Epilog=/opt/fastfreeze/batch-adapters/slurm/epilog',
  };
}

function silent(what: string, jobId: string): Finding {
  return {
    level: 'warn',
    what: `${what}: whether it runs this job again is not known`,
    remedy: `scontrol show job ${jobId}; scontrol must be on PATH in the job`,
  };
}
