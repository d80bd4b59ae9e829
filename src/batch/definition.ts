// SPDX-License-Identifier: Apache-2.0

/** What the definitions of jobs have in common, whichever system they are for. */
export interface DefinitionRequest {
  /** What the container or script gives to `fastfreeze batch run`: its options, `--`, the application's command. */
  readonly words: readonly string[];
  /** `s3://` or `gs://`: where the images of all jobs are. */
  readonly imageBase: string;
  readonly vcpus: number;
  readonly memoryMib: number;
  /** After which the system ends an attempt, in whole seconds. */
  readonly timeLimitMs?: number;
  /** Runs of a job in all. */
  readonly attempts: number;
  readonly requeueExitCode: number;
  /** Of the application, beside our own. */
  readonly variables: readonly Pair[];
  /** Of the system, for bills and searches. */
  readonly labels: readonly Pair[];
}

export type Pair = readonly [name: string, value: string];

/** The system's clock may have begun before ours: with the machine's preparation, or the download of the image. */
const MOST_MARGIN_MS = 600_000;

/** What an attempt is told of the limit that the system has for it: ten minutes less, or three quarters of a short one. */
export function toldLimitMs(timeLimitMs: number): number {
  return Math.max(timeLimitMs - MOST_MARGIN_MS, Math.floor((timeLimitMs * 3) / 4_000) * 1000);
}

/** The variables that `batch run` goes by, then the application's own. */
export function variablesOf(request: DefinitionRequest): Pair[] {
  const { imageBase, timeLimitMs, variables } = request;
  return [
    ['FASTFREEZE_IMAGE_BASE', imageBase],
    ...(timeLimitMs === undefined ? [] : [['FASTFREEZE_TIME_LIMIT', String(toldLimitMs(timeLimitMs) / 1000)] as const]),
    ...variables,
  ];
}
