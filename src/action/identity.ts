// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { FastFreezeError } from '../base/errors.js';
import { keyOf, valueOf } from '../batch/system.js';

/** Keys of a matrix that only count the legs of a chain: all of them are one job. */
const SEGMENT_KEYS = ['segment', 'fastfreeze-segment'];

/**
 * What a step's job is called when nobody has named it: the same in a re-run, in each leg that only counts (`segment`), and, with the
 * ID of the first of them, in runs that were dispatched; another for each job, matrix leg and step. Readable parts, then a hash of all.
 */
export function defaultJobId(env: NodeJS.ProcessEnv, matrix: string, rootRunId: string | undefined): string {
  const needed = (name: string): string => {
    const value = valueOf(env, name);
    if (value !== undefined) return value;
    throw new FastFreezeError({
      code: 'usage',
      op: 'name the job',
      reason: `${name} is not set: this is no GitHub runner`,
      hint: 'give job-id',
    });
  };
  const repository = needed('GITHUB_REPOSITORY');
  const workflow = workflowFile(env) ?? needed('GITHUB_WORKFLOW');
  const job = needed('GITHUB_JOB');
  const run = rootRunId ?? needed('GITHUB_RUN_ID');
  const all = [repository, workflow, job, run, valueOf(env, 'GITHUB_ACTION') ?? '', ...matrixParts(matrix)];
  const hash = createHash('sha256').update(JSON.stringify(all)).digest('hex').slice(0, HASH_LENGTH);
  return keyOf(...[repository, job, run].map((part) => part.slice(0, MOST_PART)), hash);
}

const HASH_LENGTH = 12;
/** Three of them and the hash are a job's name, which has 100 characters at most. */
const MOST_PART = 28;

/** `train.yml` of `owner/repository/.github/workflows/train.yml@refs/heads/main`. */
export function workflowFile(env: NodeJS.ProcessEnv): string | undefined {
  return /\/([^/@]+)@/.exec(valueOf(env, 'GITHUB_WORKFLOW_REF') ?? '')?.[1];
}

/** A matrix's keys and values in a fixed order; `null` where there is none. */
function matrixParts(matrix: string): string[] {
  if (matrix === '') return [];
  const parsed: unknown = JSON.parse(matrix);
  if (typeof parsed !== 'object' || parsed === null) return [];
  return Object.entries(parsed)
    .filter(([key]) => !SEGMENT_KEYS.includes(key))
    .map(([key, value]) => JSON.stringify([key, value]))
    .sort();
}
