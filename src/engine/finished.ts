// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { type ExitStatus, signalNumber } from '../linux/process.js';
import { type OpenOptions, openStore } from '../store/store.js';
import { commitUnderLease } from './commit.js';
import type { SupervisorConfig } from './config.js';
import type { LeaseGuard } from './lease-guard.js';
import { manifestWriter } from './manifest-writer.js';
import { newestGeneration } from './spool.js';

/**
 * Commit that the job has finished, so that a retry does not repeat it. A death by signal is no end of the job's own:
 * then the last image stays the newest, and the same command continues from it.
 */
export async function recordFinished(
  config: SupervisorConfig,
  lease: LeaseGuard,
  status: ExitStatus,
  command: readonly string[],
  options: OpenOptions = {},
): Promise<void> {
  if (deadlySignal(status, config) !== null) return;
  const store = openStore(config.imageUrl, options);
  // An image that waits in the spool is older than the job's end: it must not come to be the newest.
  const newest = await newestGeneration(config.imageUrl, config.spoolDirectory, options);
  // Under the default URL a job that never was checkpointed leaves nothing behind.
  if (newest === 0 && !config.imageUrlGiven) return;
  await store.prepare();
  await lease.confirm();
  const generation = newest + 1;
  const manifest = manifestWriter(config).finished(generation, status, command);
  if ((await commitUnderLease(store, manifest, lease)) === 'created') return;
  throw new FastFreezeError({
    code: 'conflict',
    op: 'commit to',
    subject: config.imageUrl,
    reason: `another run of this job has committed generation ${generation} in this moment`,
    hint: 'fastfreeze list shows what is there',
  });
}

/**
 * The number of the signal that ended the job, or null. A kernel without memory picks the largest process, not the shell that waits for
 * it: that one ends in order, with 128 + the signal's number.
 */
export function deadlySignal(
  { code, signal }: ExitStatus,
  { shellExitCodes = false }: Pick<SupervisorConfig, 'shellExitCodes'>,
): number | null {
  if (signal !== null || code === null || !shellExitCodes) return signal;
  return KILLING.find((number) => number === code - 128) ?? null;
}

/**
 * Crashes, and what a machine, a watcher of its memory or a person ends a process with. Not SIGPIPE, of which the first of two in a pipe
 * dies in the best order (141), nor SIGHUP: 129 is what git says of a wrong option.
 */
const KILLING = ['INT', 'ILL', 'TRAP', 'ABRT', 'BUS', 'FPE', 'KILL', 'SEGV', 'TERM', 'SYS'].map(signalNumber);
