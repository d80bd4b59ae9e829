// SPDX-License-Identifier: Apache-2.0
import type { JobDetail } from '@aws-sdk/client-batch';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { RESUBMITTED, resubmission } from './resubmission.js';
import { type BatchSystem, countOf, valueOf } from './system.js';

export interface ResubmitRequest {
  readonly env: NodeJS.ProcessEnv;
  readonly system: BatchSystem;
  readonly key: string | undefined;
  /** How often the job may be submitted again in all. */
  readonly most: number;
  readonly log: Logger;
}

/** For each request; a machine that is taken away leaves no time for more. */
const TIMEOUT_MS = 10_000;

/**
 * The last act of a job that was frozen: where this was its last attempt at AWS Batch, it is submitted again. Never
 * rejects: the image is there, and whoever reads the log can do the same by hand.
 */
export async function resubmit({ env, system, key, most, log }: ResubmitRequest): Promise<void> {
  const jobId = valueOf(env, 'AWS_BATCH_JOB_ID');
  if (most === 0 || jobId === undefined) return;
  const byHand = key === undefined ? 'submit the job again' : `submit the job again with FASTFREEZE_JOB_ID=${key}`;
  try {
    const { BatchClient, DescribeJobsCommand, SubmitJobCommand } = await import('./sdk.js');
    const client = new BatchClient({});
    const within = (): { abortSignal: AbortSignal } => ({ abortSignal: AbortSignal.timeout(TIMEOUT_MS) });
    try {
      const { jobs = [] } = await client.send(new DescribeJobsCommand({ jobs: [jobId] }), within());
      const job = theOne(jobs, jobId);
      const done = countOf(env, RESUBMITTED) ?? 0;
      const next = resubmission({ job, attempt: system.attempt ?? 1, key, most, done });
      if ('submit' in next) {
        const { jobId: newId = '' } = await client.send(new SubmitJobCommand(next.submit), within());
        log.info(`Submitted again as job ${newId} (${done + 1} of ${most}): the application continues there`);
      } else if (next.isNeeded) log.warn(`the job is not submitted again: ${next.reason} (try: ${byHand})`);
      else log.info(`The job is not submitted again: ${next.reason}`);
    } finally {
      client.destroy();
    }
  } catch (error) {
    const known = asFastFreezeError(error, 'submit the job again');
    log.error(`cannot submit the job again: ${known.reason}`, `${byHand}. ${remedy(error)}`);
  }
}

function theOne(jobs: readonly JobDetail[], jobId: string): JobDetail {
  const job = jobs.find((one) => one.jobId === jobId);
  if (job !== undefined) return job;
  throw new FastFreezeError({
    code: 'not-found',
    op: 'submit the job again',
    reason: `AWS Batch tells nothing of job ${jobId}`,
  });
}

function remedy(error: unknown): string {
  const name = typeof error === 'object' && error !== null && 'name' in error ? String(error.name) : '';
  if (/^AccessDenied/u.test(name))
    return 'The job role needs batch:DescribeJobs, batch:SubmitJob and batch:TagResource';
  if (/Region/u.test(String(error))) return 'The container needs AWS_REGION';
  return 'docs/batch.md tells what it needs';
}
