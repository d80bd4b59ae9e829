// SPDX-License-Identifier: Apache-2.0
import type { RegisterJobDefinitionCommandInput } from '@aws-sdk/client-batch';
import { type DefinitionRequest, variablesOf } from './definition.js';

/** The most that AWS Batch makes of a job, and the shortest limit that it keeps. */
export const AWS_MOST_ATTEMPTS = 10;
export const AWS_LEAST_LIMIT_MS = 60_000;

export interface AwsDefinitionRequest extends DefinitionRequest {
  readonly name: string;
  readonly image: string;
  /** Batch tells a container no region, and no client of S3 works without. */
  readonly region?: string;
  /** An ARN: what the job may do. */
  readonly role?: string;
  /** How often it is submitted again after its last attempt. */
  readonly resubmit?: number;
}

/**
 * A job definition for AWS Batch on EC2, as RegisterJobDefinition takes it: what was frozen, or lost its host, is run
 * again, and nothing else is.
 */
export function awsDefinition(request: AwsDefinitionRequest): RegisterJobDefinitionCommandInput {
  const { timeLimitMs, role, labels } = request;
  return {
    jobDefinitionName: request.name,
    type: 'container',
    platformCapabilities: ['EC2'],
    retryStrategy: {
      attempts: request.attempts,
      evaluateOnExit: [
        { onExitCode: String(request.requeueExitCode), action: 'RETRY' },
        { onStatusReason: 'Host EC2*', action: 'RETRY' },
        // What matches nothing is retried.
        { onReason: '*', action: 'EXIT' },
      ],
    },
    ...(timeLimitMs === undefined ? {} : { timeout: { attemptDurationSeconds: timeLimitMs / 1000 } }),
    containerProperties: {
      image: request.image,
      command: [...request.words],
      // A definition has no field for single capabilities.
      privileged: true,
      // Something reaps what the job leaves, and passes SIGTERM on.
      linuxParameters: { initProcessEnabled: true },
      ...(role === undefined ? {} : { jobRoleArn: role }),
      resourceRequirements: [
        { type: 'VCPU', value: String(request.vcpus) },
        { type: 'MEMORY', value: String(request.memoryMib) },
      ],
      environment: environment(request),
    },
    ...(labels.length === 0 ? {} : { tags: Object.fromEntries(labels), propagateTags: true }),
  };
}

function environment(request: AwsDefinitionRequest): { name: string; value: string }[] {
  const { region, resubmit } = request;
  return [
    ...(region === undefined ? [] : [['AWS_REGION', region] as const]),
    ...variablesOf(request),
    ...(resubmit === undefined ? [] : [['FASTFREEZE_RESUBMIT', String(resubmit)] as const]),
  ].map(([name, value]) => ({ name, value }));
}
