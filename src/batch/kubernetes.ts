// SPDX-License-Identifier: Apache-2.0
import { type BatchSystem, valueOf } from './system.js';

/** A Job of Kubernetes. A pod is not told which Job it belongs to: that must be handed in. */
export function kubernetes(env: NodeJS.ProcessEnv): BatchSystem {
  return {
    name: 'kubernetes',
    title: 'Kubernetes',
    recognisedBy: valueOf(env, 'KUBERNETES_SERVICE_HOST') === undefined ? [] : ['KUBERNETES_SERVICE_HOST'],
    key: undefined,
    taskIndex: valueOf(env, 'JOB_COMPLETION_INDEX'),
    keyRemedy:
      "set FASTFREEZE_JOB_ID from fieldRef metadata.labels['batch.kubernetes.io/controller-uid'], or give --job-id",
    attempt: undefined,
    endsAtMs: undefined,
    signalWindowMs: 30_000,
    sources: [],
    rerun: (code) =>
      `the Job's podFailurePolicy must ignore exit code ${code}, so that it does not count against backoffLimit`,
    findings: [],
  };
}
