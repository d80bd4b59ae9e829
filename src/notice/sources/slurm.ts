// SPDX-License-Identifier: Apache-2.0
import { type Notice, type NoticeSource, poll, reasonOf } from '../notice.js';
import { runCommand } from './run-command.js';

export interface SlurmOptions {
  readonly jobId: string;
  readonly pollMs?: number;
  /** The `scontrol` to run. */
  readonly scontrol?: string;
}

/** Slurm itself looks every 30 s; more often would only load its controller. */
const POLL_MS = 30_000;
const TIMEOUT_MS = 10_000;

/**
 * What Slurm says of the job: when it will be ended (`EndTime`, which a preemption with grace brings forward), and that
 * it is being preempted (`PreemptTime`).
 */
export function slurmSource(options: SlurmOptions): NoticeSource {
  const { jobId, pollMs = POLL_MS, scontrol = 'scontrol' } = options;
  return {
    name: `Slurm's end and preemption of job ${jobId} (scontrol)`,
    watch: (tools) =>
      poll(tools, {
        everyMs: pollMs,
        look: async () => {
          const words = [scontrol, 'show', 'job', '-o', jobId];
          const { code, stdout, stderr } = await runCommand(words, { timeoutMs: TIMEOUT_MS, signal: tools.signal });
          if (code !== 0) throw new Error(code === null ? 'it gave no answer in time' : stderr.trim().slice(0, 200));
          tools.report(readJob(stdout));
          return 'more';
        },
        explain: (error) => `scontrol cannot say when job ${jobId} ends: ${reasonOf(error)}; trying again`,
      }),
  };
}

/** Out of one line of `scontrol show job -o`; its times are the local ones, as ours. */
export function readJob(line: string): Notice | undefined {
  const time = (name: string): number => {
    const text = new RegExp(`(?:^| )${name}=(\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d)(?: |$)`, 'mu').exec(line)?.[1];
    return text === undefined ? NaN : Date.parse(text);
  };
  const atMs = time('EndTime');
  const preempted = !Number.isNaN(time('PreemptTime'));
  if (Number.isNaN(atMs)) {
    return preempted ? { what: 'stop-now', detail: 'Slurm preempts this job' } : undefined;
  }
  return {
    what: 'stop',
    deadline: { atMs, kind: 'limit' },
    detail: `Slurm ${preempted ? 'preempts' : 'ends'} this job at ${new Date(atMs).toISOString()}`,
  };
}
