// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';
import { type JobEvent, type Outcome, eventToJson, newInvocationId } from './event.js';
import { count, newTotals, refuseUnwritable, replaceFile, toOpenMetrics } from './openmetrics.js';
import { type Recorder, createRecorder } from './recorder.js';

/** Where a job's events go. Nothing here ever fails a job or makes it wait, but for `finish`. */
export interface Metrics {
  /** The job is ours: from here on the metrics file is. Before, it may be another run's of the same job. */
  begin(): void;
  emit(event: JobEvent): void;
  /** A step of ours with its duration, successful or not; what it gave may add to the event. */
  timed<T>(step: () => Promise<T>, toEvent: (outcome: Outcome, result: T | undefined) => JobEvent): Promise<T>;
  /** Wait a moment for what is not recorded yet. */
  finish(): Promise<void>;
}

export interface MetricsOptions {
  /** FF_METRICS_RECORDER. */
  readonly recorder: string | undefined;
  /** `--metrics-file`. */
  readonly filePath?: string;
  readonly jobName: string;
  readonly cliArgs: readonly string[];
  readonly startedAtMs: number;
  readonly warn: (message: string) => void;
}

/** A machine that is going away has better to do. */
const FINISH_TIMEOUT_MS = 5_000;

/** Throws `usage` when the metrics file cannot be written: a mistake that is better known at the start. */
export function createMetrics(options: MetricsOptions): Metrics {
  const { filePath, startedAtMs, cliArgs, warn } = options;
  const invocationId = newInvocationId();
  const program = options.recorder ?? '';
  const recorder: Recorder | undefined = program === '' ? undefined : createRecorder({ program, warn });
  const totals = newTotals(options.jobName, startedAtMs);
  if (filePath !== undefined) probe(filePath);
  let begun = false;
  let warned = false;

  const writeTotals = (): void => {
    if (filePath === undefined || !begun) return;
    try {
      replaceFile(filePath, toOpenMetrics(totals));
      warned = false;
    } catch (error) {
      if (!warned) warn(asFastFreezeError(error, 'write the metrics file', filePath).message);
      warned = true;
    }
  };

  const emit = (event: JobEvent): void => {
    if (count(totals, event, Date.now())) writeTotals();
    recorder?.record(eventToJson(event, { invocationId, cliArgs, elapsedMs: Date.now() - startedAtMs }));
  };

  return {
    begin() {
      begun = true;
      writeTotals();
    },
    emit,
    async timed(step, toEvent) {
      const beganMs = performance.now();
      const elapsedMs = (): number => performance.now() - beganMs;
      let result;
      try {
        result = await step();
      } catch (error) {
        const known = asFastFreezeError(error, 'run').message;
        emit(toEvent({ durationMs: elapsedMs(), error: known }, undefined));
        throw error;
      }
      emit(toEvent({ durationMs: elapsedMs() }, result));
      return result;
    },
    finish: async () => await recorder?.finish(FINISH_TIMEOUT_MS),
  };
}

function probe(path: string): void {
  try {
    refuseUnwritable(path);
  } catch (error) {
    const { op, reason } = asFastFreezeError(error, 'write the metrics file', path);
    const hint = 'give --metrics-file a path in a directory that exists and that you may write to';
    throw new FastFreezeError({ code: 'usage', op, subject: path, reason, hint, cause: error });
  }
}
