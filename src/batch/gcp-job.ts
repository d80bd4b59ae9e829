// SPDX-License-Identifier: Apache-2.0
import { type DefinitionRequest, variablesOf } from './definition.js';

export const GCP_MOST_RETRIES = 10;
export const GCP_MOST_TASKS = 10_000;

/**
 * What Google Batch says for a task that did not end by itself: machine preempted, without a report, rebooted, without an
 * answer, limit reached, made anew. (50000 is any other failure.)
 */
const LOST_TASK_CODES = [50001, 50002, 50003, 50004, 50005, 50006];

export interface GcpJobRequest extends DefinitionRequest {
  readonly run:
    | { readonly kind: 'container'; readonly image: string }
    /** On the machine itself, where fastfreeze is in /opt/fastfreeze and the application in `directory`. */
    | { readonly kind: 'script'; readonly directory: string };
  readonly machineType?: string;
  readonly minCpuPlatform?: string;
  readonly provisioningModel: 'SPOT' | 'STANDARD';
  /** An e-mail address: what the job may do. */
  readonly serviceAccount?: string;
  readonly tasks: number;
  /** Of a job that is to be continued; without it, it is a new one. */
  readonly jobId?: string;
}

/** `batch.v1.Job` of Google, in its JSON form. */
export type GcpJob = Readonly<Record<string, unknown>>;

/** A job for Google Batch, as `gcloud batch jobs submit --config` takes it: tasks that were frozen or lost are run again. */
export function gcpJob(request: GcpJobRequest): GcpJob {
  const { timeLimitMs, machineType, minCpuPlatform, serviceAccount, labels } = request;
  return {
    taskGroups: [
      {
        taskCount: request.tasks,
        taskSpec: {
          runnables: [{ ...runnable(request), environment: { variables: variables(request) } }],
          computeResource: { cpuMilli: request.vcpus * 1000, memoryMib: request.memoryMib },
          ...(timeLimitMs === undefined ? {} : { maxRunDuration: `${timeLimitMs / 1000}s` }),
          maxRetryCount: request.attempts - 1,
          // There can be only one; codes that it does not list fail the task.
          lifecyclePolicies: [
            { action: 'RETRY_TASK', actionCondition: { exitCodes: [request.requeueExitCode, ...LOST_TASK_CODES] } },
          ],
        },
      },
    ],
    allocationPolicy: {
      instances: [
        {
          policy: {
            ...(machineType === undefined ? {} : { machineType }),
            ...(minCpuPlatform === undefined ? {} : { minCpuPlatform }),
            provisioningModel: request.provisioningModel,
          },
        },
      ],
      ...(serviceAccount === undefined ? {} : { serviceAccount: { email: serviceAccount } }),
    },
    ...(labels.length === 0 ? {} : { labels: Object.fromEntries(labels) }),
    logsPolicy: { destination: 'CLOUD_LOGGING' },
  };
}

function variables(request: GcpJobRequest): Readonly<Record<string, string>> {
  const { jobId } = request;
  return Object.fromEntries([
    ...(jobId === undefined ? [] : [['FASTFREEZE_JOB_ID', jobId] as const]),
    ...variablesOf(request),
  ]);
}

function runnable({ run, words }: GcpJobRequest): Readonly<Record<string, unknown>> {
  if (run.kind === 'container') {
    // What CRIU needs; something that reaps what the job leaves; the metadata server by its name.
    const options = '--privileged --init --network host';
    return { container: { imageUri: run.image, commands: [...words], options } };
  }
  const command = ['/opt/fastfreeze/bin/fastfreeze', 'batch', 'run', ...words].map(shellWord).join(' ');
  return { script: { text: `#!/bin/sh\ncd ${shellWord(run.directory)} && exec ${command}\n` } };
}

function shellWord(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/u.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
