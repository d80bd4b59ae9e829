// SPDX-License-Identifier: Apache-2.0
import { awsBatch } from './aws-batch.js';
import { gcpBatch } from './gcp-batch.js';
import { kubernetes } from './kubernetes.js';
import { slurm } from './slurm.js';
import { type BatchSystem, type SystemName, valueOf } from './system.js';

/** The batch system that runs this process, by its environment. AWS Batch goes before Kubernetes, on which it may run. */
export function recognise(env: NodeJS.ProcessEnv): BatchSystem {
  const found = [slurm, awsBatch, gcpBatch, kubernetes].map((make) => make(env));
  return found.find(({ recognisedBy }) => recognisedBy.length > 0) ?? none();
}

export function chooseSystem(name: SystemName | 'auto', env: NodeJS.ProcessEnv): BatchSystem {
  switch (name) {
    case 'auto':
      return recognise(env);
    case 'slurm':
      return slurm(env);
    case 'aws-batch':
      return awsBatch(env);
    case 'gcp-batch':
      return gcpBatch(env);
    case 'kubernetes':
      return kubernetes(env);
    case 'none':
      return none();
  }
}

/** A loop in a shell, a system that is not known: whoever reads the exit code runs the job again. */
function none(): BatchSystem {
  return {
    name: 'none',
    title: 'no batch system',
    recognisedBy: [],
    key: undefined,
    taskIndex: undefined,
    attempt: undefined,
    endsAtMs: undefined,
    signalWindowMs: 30_000,
    sources: [],
    rerun: (code) => `whoever started the job must run the same command again on exit code ${code}`,
    findings: [],
  };
}

/**
 * What a job is called: by its command line, literally; by its environment, which all tasks of an array have alike, so
 * that a task's index is added; or by its system.
 */
export function jobKey(given: string | undefined, system: BatchSystem, env: NodeJS.ProcessEnv): string | undefined {
  const named = valueOf(env, 'FASTFREEZE_JOB_ID');
  if (given !== undefined || named === undefined) return given ?? system.key;
  return system.taskIndex === undefined ? named : `${named}-${system.taskIndex}`;
}
