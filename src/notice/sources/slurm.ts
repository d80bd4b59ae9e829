// SPDX-License-Identifier: Apache-2.0
import { type Notice, type NoticeSource, poll, reasonOf } from '../notice.js';
import { runCommand } from './run-command.js';

export interface SlurmOptions {
  readonly jobId: string;
  /** What the job's environment says of its end, as it was when the job began; milliseconds since the epoch. */
  readonly endsAtMs?: number | undefined;
  readonly pollMs?: number;
  /** The `scontrol` to run. */
  readonly scontrol?: string;
}

/** Slurm itself looks every 30 s; more often would only load its controller. */
const POLL_MS = 30_000;
const TIMEOUT_MS = 10_000;

/**
 * What Slurm says of the job: when it will be ended (`EndTime`, which a preemption with grace brings forward, and an
 * administrator may move either way), and that it is being preempted (`PreemptTime`). What the environment says of the end
 * holds until `scontrol` has answered.
 */
export function slurmSource(options: SlurmOptions): NoticeSource {
  const { jobId, endsAtMs, pollMs = POLL_MS, scontrol = 'scontrol' } = options;
  return {
    name: `Slurm's end and preemption of job ${jobId} (scontrol)`,
    watch: async (tools) => {
      if (endsAtMs !== undefined) tools.report(ending(endsAtMs, 'ends'));
      await poll(tools, {
        everyMs: pollMs,
        look: async () => {
          const words = [scontrol, 'show', 'job', '-o', jobId];
          const env = { ...process.env, ...STANDARD_TIMES };
          const options = { timeoutMs: TIMEOUT_MS, signal: tools.signal, env };
          const { code, stdout, stderr } = await runCommand(words, options);
          if (code !== 0) throw new Error(code === null ? 'it gave no answer in time' : stderr.trim().slice(0, 200));
          tools.report(readJob(stdout, jobId));
          return 'more';
        },
        explain: (error) => `scontrol cannot say when job ${jobId} ends: ${reasonOf(error)}; trying again`,
      });
    },
  };
}

/**
 * For `scontrol`: a user may have set another format of times, which could not be read. And it prints the local time of the C
 * library, which Node.js takes for another one where TZ is a path or a rule, and which comes twice in an hour of autumn.
 */
export const STANDARD_TIMES = { SLURM_TIME_FORMAT: 'standard', TZ: 'UTC0' } as const;

/**
 * Out of `scontrol show job -o`: a line for each job, of all tasks where the ID is an array's. Its times are those of
 * `STANDARD_TIMES`. Throws where it does not tell of this job.
 */
export function readJob(output: string, jobId: string): Notice | undefined {
  const record = output.split('\n').find((line) => line.startsWith(`JobId=${jobId} `));
  if (record === undefined) throw new Error('its answer has no record of this job');
  const field = (name: string): string => new RegExp(` ${name}=(\\S*)`, 'u').exec(record)?.[1] ?? '';
  const endTime = field('EndTime');
  const atMs = readTime(endTime);
  const preempted = readTime(field('PreemptTime')) !== undefined;
  if (atMs === undefined) {
    if (preempted) return { what: 'stop-now', detail: 'Slurm preempts this job' };
    if (endTime !== 'Unknown') throw new Error(`EndTime=${endTime} is no time`);
    return undefined;
  }
  return ending(atMs, preempted ? 'preempts' : 'ends');
}

function ending(atMs: number, how: 'ends' | 'preempts'): Notice {
  const detail = `Slurm ${how} this job at ${new Date(atMs).toISOString()}`;
  return { what: 'stop', deadline: { atMs, kind: 'limit' }, detail };
}

/** As `scontrol` prints a time with `STANDARD_TIMES`; undefined for `None`, `Unknown` and what is none. */
export function readTime(text: string): number | undefined {
  return /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/u.test(text) ? Date.parse(`${text}Z`) : undefined;
}
