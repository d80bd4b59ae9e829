// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { makeTemporaryDirectory, removeTemporaryDirectory } from '../container/temporary.js';
import { emptySpool } from '../engine/spool.js';
import { claimJob, releaseJob } from '../engine/state.js';
import { nodeCommand } from '../linux/node-command.js';
import { hasNewImage } from './new-image.js';
import { type SlurmControl, slurmControl, slurmName } from './slurm-control.js';
import { type Drop, readDrop } from './slurm-drop.js';
import { withPatience } from './slurm-patience.js';

/**
 * After the job, in Slurm's epilog, as the job's user: what its end has cut is finished, in its own environment. Resolves to
 * an exit code.
 */
export async function rescue(directory: string): Promise<number> {
  const drop = readDrop(directory);
  if (drop === undefined) return 0;
  // Another process: some of its variables count at the start of Node.js only.
  const [node, ...flags] = nodeCommand();
  const script = fileURLToPath(new URL('./slurm-rescue-main.js', import.meta.url));
  const child = spawn(node, [...flags, '--no-warnings', script, directory], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: drop.environment,
  });
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

/**
 * The upload first, then the decision that may depend on it; what the job has left on the node goes in any case. Rejects with
 * what failed first.
 */
export async function rescueHere(drop: Drop, log: Logger, control = controlOf(drop)): Promise<void> {
  const failures: unknown[] = [];
  const attempt = async (step: () => Promise<void>): Promise<void> => {
    await step().catch((error: unknown) => void failures.push(error));
  };
  const { spoolDirectory: directory, imageUrl: url, keep } = drop;
  if (directory !== undefined) {
    await attempt(() => emptySpool({ directory, url, keep, log: (message) => log.info(message) }));
  }
  // Also after an upload that failed: the image of an earlier checkpoint of this attempt may be there.
  await attempt(() => withPatience(() => requeueAfterTimeout(drop, log, control), log));
  clear(drop, log);
  if (failures.length > 0) throw failures[0];
}

function controlOf({ jobId, environment }: Drop): SlurmControl {
  return slurmControl(jobId, slurmName(environment, jobId));
}

/** Slurm runs no job again that has reached its limit. One that has saved something in this attempt gets further with each. */
async function requeueAfterTimeout(drop: Drop, log: Logger, control: SlurmControl): Promise<void> {
  const { jobId } = drop;
  const never = new AbortController().signal;
  const job = await control.job(never);
  if (job.reason !== 'TimeLimit' || job.state === 'PENDING') return;
  if (!job.mayRequeue || !job.isBatch) return;
  if (!(await hasNewImage(drop.imageUrl, drop.startedAtMs))) {
    log.info(`Job ${jobId} has reached its time limit without an image of this attempt: it is not requeued`);
    return;
  }
  log.info(`Job ${jobId} has reached its time limit, and has an image of this attempt: requeueing it`);
  await control.requeue(never);
}

/** The state directory and temporary files of a run that was killed, as its next run here would clear them. */
function clear({ jobName, environment }: Drop, log: Logger): void {
  try {
    const job = claimJob(jobName);
    try {
      const left = removeTemporaryDirectory(makeTemporaryDirectory(job.path, environment));
      if (left !== undefined) log.warn(left.message);
    } finally {
      releaseJob(job);
    }
  } catch (error) {
    log.warn(asFastFreezeError(error, 'clear what is left of', jobName).message);
  }
}
