// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { OnExit, SlurmControl, SlurmJob } from './slurm-control.js';
import { withPatience } from './slurm-patience.js';
import type { Finding } from './system.js';

/** What becomes of a job that has left with the exit code for "run again". */
export type Again =
  /** The exit code is enough. */
  | { readonly by: 'exit code' }
  | { readonly by: 'scontrol' }
  /** Nothing is to be done: somebody else does it, or nobody may. */
  | { readonly by: 'nobody'; readonly why: string; readonly remedy?: string; readonly exitCode?: number };

/** As `fastfreeze run` has it: stopped by a checkpoint. */
const STOPPED_EXIT_CODE = 137;

/** Slurm's states of a job that runs, or could in a moment. */
const RUNS: readonly string[] = ['RUNNING', 'SUSPENDED', 'STOPPED', 'SIGNALING', 'RESIZING'];
const WAITS: readonly string[] = ['PENDING', 'REQUEUED', 'REQUEUE_FED', 'REQUEUE_HOLD', 'SPECIAL_EXIT', 'CONFIGURING'];

/**
 * Pure. A job is requeued only while it runs, or when its time limit is what ends it: all else that ends one is a wish of
 * somebody's (`scancel`), or is requeued by Slurm itself (preemption, a lost node).
 */
export function decideAgain(job: SlurmJob, onExit: OnExit, isBatchProcess: boolean): Again {
  const { state, isPreempted, mayRequeue, isBatch } = job;
  if (WAITS.includes(state)) return { by: 'nobody', why: `Slurm has put it back into the queue already (${state})` };
  if (!isBatch) {
    return { by: 'nobody', why: 'it is no batch job, and Slurm runs no other again', remedy: 'submit it with sbatch' };
  }
  const isTimeout = isPastLimit(job);
  if (!RUNS.includes(state) && isPreempted) {
    const remedy = 'scontrol requeue, where PreemptMode is CANCEL';
    return { by: 'nobody', why: 'Slurm preempts it, and runs it again itself', remedy };
  }
  if (!RUNS.includes(state) && !isTimeout) {
    return { by: 'nobody', why: `it was cancelled, or is being ended otherwise (${state})` };
  }
  if (!mayRequeue) {
    return {
      by: 'nobody',
      why: 'it was submitted with --no-requeue, or slurm.conf has JobRequeue=0',
      remedy: 'submit with sbatch --requeue',
      // RequeueExit does not ask whether a job may be requeued.
      ...(onExit === 'nothing' ? {} : { exitCode: STOPPED_EXIT_CODE }),
    };
  }
  // The limit has struck: from then on no exit code counts.
  if (isTimeout) return { by: 'scontrol' };
  return onExit === 'nothing' || !isBatchProcess ? { by: 'scontrol' } : { by: 'exit code' };
}

/** What a user should know from the start, since at the end it is too late. */
export function findingsOf(job: SlurmJob, onExit: OnExit, code: number, jobId: string): Finding[] {
  const warn = (what: string, remedy: string): Finding => ({ level: 'warn', what, remedy });
  if (!job.isBatch) return [warn('this is no batch job, and Slurm runs no other again', 'submit it with sbatch')];
  if (!job.mayRequeue) {
    const what =
      'Slurm will not run this job again: it was submitted with --no-requeue, or slurm.conf has JobRequeue=0';
    return [warn(what, `sbatch --requeue; for this job: scontrol update JobId=${jobId} Requeue=1`)];
  }
  if (onExit === 'hold') {
    const what = `slurm.conf has ${code} in RequeueExitHold: this job will be held when it is frozen`;
    return [warn(what, `scontrol release ${jobId} then, or --requeue-exit-code with a code that is not there`)];
  }
  return [];
}

/**
 * Whether we are the process of the batch script itself (`exec fastfreeze batch run`), whose exit code is the job's and
 * which gets what `--signal=B:` sends: then slurmstepd is our parent, and calls itself `slurmstepd: [7.batch]`.
 */
export function isBatchProcess(parentPid = process.ppid): boolean {
  try {
    return /^slurmstepd: \[[^\]]*\.batch\]/u.test(readFileSync(`/proc/${parentPid}/cmdline`, 'latin1'));
  } catch {
    return false; // It has gone, or is not ours to look at: a requeue by scontrol is right in either case.
  }
}

export interface AgainOptions {
  readonly control: SlurmControl;
  readonly jobId: string;
  readonly code: number;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Whether this attempt has an image: asked only when its time limit has struck. */
  readonly hasSaved: () => Promise<boolean>;
  readonly isBatchProcess?: boolean;
  readonly retryMs?: number;
}

/**
 * The last act of a job that is to be run again: what it has saved is durable and its application gone. Resolves to the exit
 * code to leave with. Never rejects.
 */
export async function runAgain(options: AgainOptions): Promise<number> {
  const { jobId, code, log } = options;
  try {
    return await withPatience(() => decideAndAct(options), log, options);
  } catch (error) {
    const known = asFastFreezeError(error, 'requeue job', jobId);
    log.error(`${known.message}. Its image is kept`, known.hint);
    return code;
  }
}

async function decideAndAct(options: AgainOptions): Promise<number> {
  const { control, jobId, code, log, signal, hasSaved } = options;
  const job = await control.job(signal);
  const { onExit } = await control.config(code, signal);
  const again = decideAgain(job, onExit, options.isBatchProcess ?? isBatchProcess());
  switch (again.by) {
    case 'exit code':
      log.info(`Slurm runs job ${jobId} again, since RequeueExit has ${code}`);
      return code;
    case 'nobody':
      log.info(`Job ${jobId} is not requeued by us: ${again.why}. Its image is kept${tried(again.remedy)}`);
      return again.exitCode ?? code;
    case 'scontrol':
      // Else a job that cannot be frozen, or not restored in time, would use up its limit again and again.
      if (isPastLimit(job) && !(await hasSaved())) {
        log.warn(`job ${jobId} has reached its time limit without an image of this attempt: it is not requeued`);
        return code;
      }
      log.info(`Requeueing job ${jobId} (scontrol requeue): Slurm ends what is left of it and runs it again`);
      await control.requeue(signal);
      return code;
  }
}

function isPastLimit({ reason, state }: SlurmJob): boolean {
  return reason === 'TimeLimit' && !RUNS.includes(state);
}

function tried(remedy: string | undefined): string {
  return remedy === undefined ? '' : ` (try: ${remedy})`;
}
