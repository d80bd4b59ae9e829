// SPDX-License-Identifier: Apache-2.0
import { setSecret } from '@actions/core';
import { valueOf } from '../batch/system.js';
import { cloudsHere } from './clouds.js';
import { deadlineOf, jobTime } from './deadline.js';
import type { EngineTask } from './engine-task.js';
import { scrubPatterns } from './environment.js';
import { defaultJobId } from './identity.js';
import type { Inputs } from './inputs.js';
import { imagePlace } from './place.js';
import { jobCredentials } from './preserved.js';
import { type Chain, type RunEvent, readChain, readEvent } from './redispatch.js';

/** All that is known before anything is done. */
export interface Plan {
  readonly inputs: Inputs;
  readonly startedAtMs: number;
  readonly jobId: string;
  readonly imageUrl: string;
  readonly event: RunEvent;
  readonly chain: Chain;
  readonly endsAtMs: number;
  readonly task: Omit<EngineTask, 'directory' | 'command' | 'script' | 'options'>;
  readonly options: readonly string[];
}

export function makePlan(inputs: Inputs, env: NodeJS.ProcessEnv, nowMs: number): Plan {
  for (const secret of [inputs.passphrase, inputs.githubToken])
    if (secret !== undefined && secret !== '') setSecret(secret);
  const event = readEvent(env);
  const runId = valueOf(env, 'GITHUB_RUN_ID') ?? '';
  const before = readChain(event);
  const chain = before ?? { rootRunId: runId, run: 1, generation: 0, stalls: 0 };
  const jobId = inputs.jobId === '' ? defaultJobId(env, inputs.matrix, before?.rootRunId) : inputs.jobId;
  const imageUrl = imagePlace(inputs, jobId);
  const time = jobTime(inputs, nowMs);
  const { passphrase, checkpointEveryMs } = inputs;
  return {
    inputs,
    startedAtMs: nowMs,
    jobId,
    imageUrl,
    event,
    chain,
    endsAtMs: time.startedAtMs + inputs.timeoutMs,
    task: {
      imageUrl,
      ...(passphrase === undefined ? {} : { passphrase }),
      deadline: deadlineOf(inputs, time),
      ...(checkpointEveryMs === undefined ? {} : { checkpointEvery: checkpointEveryMs }),
      noticeFrom: inputs.notices ?? cloudsHere(env),
      keepImage: inputs.keepImage,
    },
    options: engineOptions(inputs, env, imageUrl),
  };
}

/** As on the command line of `fastfreeze run`. */
function engineOptions(inputs: Inputs, env: NodeJS.ProcessEnv, imageUrl: string): string[] {
  const hosted = env['RUNNER_ENVIRONMENT'] === 'github-hosted';
  return [
    ...['--cpu-budget', inputs.cpuBudget],
    ...['--cpu-baseline', inputs.cpuBaseline ?? (hosted ? 'x86-64-v3' : 'host')],
    // The next runner has another system, and none of the job's files.
    ...['--carry-mapped', '--preserve-open-files'],
    ...inputs.preservePaths.flatMap((path) => ['--preserve-path', path]),
    ...[...inputs.preserveExcept, ...jobCredentials(inputs, env)].flatMap((path) => ['--preserve-except', path]),
    ...scrubPatterns(env, inputs, imageUrl).flatMap((pattern) => ['--scrub-env', pattern]),
  ];
}
