// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';
import { type JobEvent, type Outcome, eventToJson, newInvocationId } from './event.js';
import { type JobTotals, count, newTotals, replaceFile, toOpenMetrics } from './openmetrics.js';
import { type Recorder, createRecorder } from './recorder.js';

/** Where a job's events go. Nothing here ever fails a job or makes it wait, but for `finish`. */
export interface Metrics {
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

/** Throws when the metrics file cannot be written: a mistake that is better known at the start. */
export function createMetrics(options: MetricsOptions): Metrics {
  const { filePath, startedAtMs, cliArgs, warn } = options;
  const invocationId = newInvocationId();
  const program = options.recorder ?? '';
  const recorder: Recorder | undefined = program === '' ? undefined : createRecorder({ program, warn });
  const totals = newTotals(options.jobName, startedAtMs);
  if (filePath !== undefined) writeFirst(filePath, totals);
  let warned = false;

  const writeTotals = (event: JobEvent): void => {
    count(totals, event, Date.now());
    if (filePath === undefined) return;
    try {
      replaceFile(filePath, toOpenMetrics(totals));
      warned = false;
    } catch (error) {
      if (!warned) warn(asFastFreezeError(error, 'write the metrics file', filePath).message);
      warned = true;
    }
  };

  const emit = (event: JobEvent): void => {
    writeTotals(event);
    recorder?.record(eventToJson(event, { invocationId, cliArgs, elapsedMs: Date.now() - startedAtMs }));
  };

  return {
    emit,
    async timed(step, toEvent) {
      const beganMs = performance.now();
      const outcome = (error?: string): Outcome => ({
        durationMs: performance.now() - beganMs,
        ...(error === undefined ? {} : { error }),
      });
      try {
        const result = await step();
        emit(toEvent(outcome(), result));
        return result;
      } catch (error) {
        emit(toEvent(outcome(asFastFreezeError(error, 'run').message), undefined));
        throw error;
      }
    },
    finish: async () => await recorder?.finish(FINISH_TIMEOUT_MS),
  };
}

function writeFirst(path: string, totals: JobTotals): void {
  try {
    replaceFile(path, toOpenMetrics(totals));
  } catch (error) {
    const { op, reason } = asFastFreezeError(error, 'write the metrics file', path);
    const hint = 'give --metrics-file a path in a directory that exists and that you may write to';
    throw new FastFreezeError({ code: 'usage', op, subject: path, reason, hint, cause: error });
  }
}
