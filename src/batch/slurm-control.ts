// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { runCommand } from '../notice/sources/run-command.js';
import { STANDARD_TIMES, readTime } from '../notice/sources/slurm.js';

/** What `scontrol show job -o` says of a job, as far as it matters for running it again. */
export interface SlurmJob {
  /** What `scontrol` must be given to mean this job, or task of an array, alone. */
  readonly name: string;
  /** `RUNNING`, `COMPLETING`, `PENDING`, ...; while a job is being ended it is `COMPLETING`, whatever ends it. */
  readonly state: string;
  /** `TimeLimit` for a job that has reached its limit; `None` for one that was cancelled. */
  readonly reason: string;
  readonly isPreempted: boolean;
  /** By its own `--requeue` or `--no-requeue`, else by JobRequeue of slurm.conf. */
  readonly mayRequeue: boolean;
  /** Of sbatch: others cannot be run again. */
  readonly isBatch: boolean;
  /** Milliseconds since the epoch; undefined where it has no end. */
  readonly endsAtMs: number | undefined;
}

/** What slurm.conf does with a job whose script ends with a certain exit code. */
export type OnExit = 'requeue' | 'hold' | 'nothing';

/** What matters of slurm.conf. */
export interface SlurmConfig {
  readonly onExit: OnExit;
  /** There is an epilog; whether it calls ours it does not say. */
  readonly hasEpilog: boolean;
}

/** Slurm's controller, by `scontrol`. What it cannot answer rejects with `host`. */
export interface SlurmControl {
  job(signal: AbortSignal): Promise<SlurmJob>;
  /** `code`: whose `onExit` is asked for. */
  config(code: number, signal: AbortSignal): Promise<SlurmConfig>;
  /** Slurm ends the job at once and runs it again: who calls this has nothing else left to do. */
  requeue(signal: AbortSignal): Promise<void>;
}

/** Longer than `scontrol` itself waits for a controller that is busy. */
const TIMEOUT_MS = 20_000;

/**
 * What a command must be given to mean this job alone: a plain number that is also an array's means all tasks of the array,
 * which its last task has.
 */
export function slurmName(env: Readonly<Record<string, string | undefined>>, jobId: string): string {
  const array = env['SLURM_ARRAY_JOB_ID'] ?? '';
  const task = env['SLURM_ARRAY_TASK_ID'] ?? '';
  return array === '' || task === '' ? jobId : `${array}_${task}`;
}

/**
 * `given`, of `slurmName`, is what the job is called until Slurm has been asked about it. A job that was submitted in a task of
 * an array has that task's variables, and an epilog has none.
 */
export function slurmControl(jobId: string, given: string): SlurmControl {
  let name = given;
  const ask = async (op: string, words: readonly string[], signal: AbortSignal): Promise<string> => {
    const options = { timeoutMs: TIMEOUT_MS, signal, env: { ...process.env, ...STANDARD_TIMES } };
    const answer = await runCommand(['scontrol', ...words], options).catch((error: unknown) => {
      throw refusal(op, name, `scontrol cannot be run: ${String(error)}`);
    });
    const { code, stdout, stderr } = answer;
    if (code === 0) return stdout;
    const said = stderr.trim().split('\n')[0] ?? '';
    throw refusal(op, name, code === null ? 'scontrol gave no answer in time' : said.slice(0, 200));
  };
  return {
    job: async (signal) => {
      const job = readSlurmJob(await ask('ask Slurm about job', ['show', 'job', '-o', jobId], signal), jobId);
      ({ name } = job);
      return job;
    },
    config: async (code, signal) => {
      const text = await ask('ask for the configuration of Slurm of job', ['show', 'config'], signal);
      return { onExit: readOnExit(text, code), hasEpilog: readHasEpilog(text) };
    },
    requeue: async (signal) => {
      await ask('requeue job', ['requeue', name], signal);
    },
  };
}

/** Throws where the answer, which has all tasks of an array, has no record of this job. */
export function readSlurmJob(output: string, jobId: string): SlurmJob {
  const record = output.split('\n').find((line) => line.startsWith(`JobId=${jobId} `));
  if (record === undefined) throw refusal('ask Slurm about job', jobId, 'its answer has no record of this job');
  const field = (name: string): string => new RegExp(` ${name}=(\\S*)`, 'u').exec(record)?.[1] ?? '';
  return {
    name: slurmName({ SLURM_ARRAY_JOB_ID: field('ArrayJobId'), SLURM_ARRAY_TASK_ID: field('ArrayTaskId') }, jobId),
    state: field('JobState'),
    reason: field('Reason'),
    isPreempted: !['', 'None'].includes(field('PreemptTime')),
    mayRequeue: field('Requeue') === '1',
    isBatch: field('BatchFlag') !== '0',
    endsAtMs: readTime(field('EndTime')),
  };
}

/** Out of `scontrol show config`: `RequeueExit = 85,100-110`. */
export function readOnExit(config: string, code: number): OnExit {
  const lists = (name: string): boolean => {
    const list = new RegExp(`^${name}\\s*= *(\\S*)`, 'mu').exec(config)?.[1] ?? '';
    return list.split(',').some((part) => {
      const [, low, high] = /^(\d+)(?:-(\d+))?$/u.exec(part) ?? [];
      return low !== undefined && code >= Number(low) && code <= Number(high ?? low);
    });
  };
  if (lists('RequeueExitHold')) return 'hold';
  return lists('RequeueExit') ? 'requeue' : 'nothing';
}

/** `Epilog = (null)` where there is none; of newer versions no line, and `Epilog[0] = /a/path` where there is one. */
export function readHasEpilog(config: string): boolean {
  return /^Epilog(?:\[\d+\])?\s*= *\//mu.test(config);
}

function refusal(op: string, jobId: string, reason: string): FastFreezeError {
  return new FastFreezeError({
    code: 'host',
    op,
    subject: jobId,
    reason,
    hint: `once Slurm answers: scontrol requeue ${jobId}`,
  });
}
