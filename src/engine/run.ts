// SPDX-License-Identifier: Apache-2.0
import { hostname } from 'node:os';
import { join } from 'node:path';
import { FastFreezeError, asFastFreezeError, toErrorRecord } from '../base/errors.js';
import { createLogger } from '../base/log.js';
import { appEnvironment } from '../container/app-env.js';
import { threadCount } from '../container/launch.js';
import { makeTemporaryDirectory, removeTemporaryDirectory } from '../container/temporary.js';
import { findCriu } from '../criu/runtime/find.js';
import { isPrivileged } from '../criu/runtime/privilege.js';
import { releaseQuietly } from '../store/lease/acquire.js';
import type { LeaseHolder } from '../store/lease/record.js';
import { thisRun } from '../store/lease/self.js';
import { openStore } from '../store/store.js';
import { CHECKPOINTED } from './config.js';
import { EXIT } from './exit-codes.js';
import type { JobEvent } from './metrics/event.js';
import { createMetrics } from './metrics/metrics.js';
import { JobHeldError } from './plan.js';
import { refuseCarrying, refuseOverlap } from './preserve.js';
import type { RunHooks, RunOptions, RunOutcome } from './run/options.js';
import { type Plan, cpuOf, planAndTell } from './run/plan-run.js';
import { lookAtTime, refuseBareMachine, refuseLeaseOptions } from './run/refusals.js';
import { type CaughtSignals, catchSignals } from './run/signals.js';
import { type TemporaryPlace, supervisorConfig } from './run/supervisor-config.js';
import { openTerminal } from './run/terminal.js';
import type { Voice } from './run/voice.js';
import { type JobDirectory, claimJob, releaseJob } from './state.js';
import { supervise } from './supervise.js';

export type { OnReady, RunHooks, RunOptions, RunOutcome } from './run/options.js';

const FINISHED_BEFORE = 'the job finished in an earlier run';

/** Start the job or continue it, stay its process to the end, and mirror how it ended. */
export async function run(options: RunOptions, hooks: RunHooks = {}): Promise<RunOutcome> {
  const startedAtMs = Date.now();
  const signals = catchSignals();
  try {
    return await runAndTell(options, signals, startedAtMs, hooks);
  } finally {
    await hooks.pilot?.stop();
    signals.stop();
  }
}

/** How it went is told to the job's metrics, whatever it is. */
async function runAndTell(
  options: RunOptions,
  signals: CaughtSignals,
  startedAtMs: number,
  hooks: RunHooks,
): Promise<RunOutcome> {
  const log = createLogger({ command: 'run', verbosity: options.verbosity, format: options.logFormat, startedAtMs });
  const metrics = createMetrics({
    recorder: process.env['FF_METRICS_RECORDER'],
    ...(options.metricsPath === undefined ? {} : { filePath: options.metricsPath }),
    jobName: options.jobName,
    cliArgs: options.cliArgs,
    startedAtMs,
    warn: (message) => log.warn(message),
  });
  try {
    const outcome = await runWithSignals(options, signals, { log, metrics, startedAtMs, hooks });
    metrics.emit(runEvent(outcome, Date.now() - startedAtMs));
    return outcome;
  } catch (error) {
    const known = asFastFreezeError(error, 'run');
    const exitCode = known.code === 'usage' ? EXIT.usage : EXIT.failed;
    metrics.emit(runEvent({ exitCode, error: known }, Date.now() - startedAtMs));
    throw error;
  } finally {
    await metrics.finish();
  }
}

/** A checkpoint that stops the job is no failure of it, although its exit code is not 0. */
function runEvent({ exitCode, error, reason }: RunOutcome, durationMs: number): JobEvent {
  const failure = error?.message ?? (exitCode === 0 || reason === CHECKPOINTED ? undefined : reason);
  return { action: 'run', durationMs, exitCode, ...(failure === undefined ? {} : { error: failure }) };
}

async function runWithSignals(options: RunOptions, signals: CaughtSignals, voice: Voice): Promise<RunOutcome> {
  const { log } = voice;
  log.debug(`Time is ${new Date().toUTCString()}, host is ${hostname()}`);
  // A URL that nothing can be kept under, a variable that nobody knows: mistakes of the caller's, not a failed restore.
  const { writeOnce } = openStore(options.imageUrl);
  if (writeOnce !== undefined) refuseLeaseOptions(options);
  refuseOverlap(options.preserve.paths, options.imageUrl);
  refuseCarrying(options.preserve, options.container);
  threadCount();
  appEnvironment({ env: process.env, scrub: options.scrubEnvironment, fakeRoot: false });
  if (!options.container) refuseBareMachine();
  lookAtTime(options, log);
  const job = claimJob(options.jobName);
  voice.metrics.begin();
  try {
    // The default URL is this machine's own, and there the job's name keeps others away.
    if (!options.imageUrlGiven || writeOnce !== undefined) {
      if (writeOnce !== undefined)
        log.info('A cache has no leases: of twins, the first that commits a checkpoint goes on');
      return await runPlanned(options, job, undefined, signals, voice);
    }
    const holder = thisRun(join(job.path, 'lock'), job.lockFd);
    let ended = false;
    try {
      const outcome = await runPlanned(options, job, holder, signals, voice);
      ended = outcome.error === undefined && outcome.reason !== FINISHED_BEFORE;
      return outcome;
    } finally {
      // A supervisor that came to its end in order has done so itself.
      if (!ended) await releaseQuietly(openStore(options.imageUrl), holder.id);
    }
  } finally {
    releaseJob(job);
  }
}

async function runPlanned(
  options: RunOptions,
  job: JobDirectory,
  holder: LeaseHolder | undefined,
  signals: CaughtSignals,
  voice: Voice,
): Promise<RunOutcome> {
  let plan: Plan;
  try {
    plan = await planAndTell(options, holder, signals, voice);
  } catch (error) {
    if (error instanceof FastFreezeError && error.code === 'aborted') throw error;
    const known = asFastFreezeError(error, 'fetch the image manifest');
    return { exitCode: error instanceof JobHeldError ? EXIT.failed : EXIT.restoreFailed, error: known };
  }
  if (options.returnFinished && plan.finished !== undefined) return finishedBefore(plan.finished.exitCode);
  if (plan.generation === undefined && options.command.length === 0) throw nothingToRun(options.imageUrl);
  const cpu = cpuOf(options, plan, voice.log);
  return await runSupervised(options, job, holder, { ...plan, ...(cpu === undefined ? {} : { cpu }) }, signals, voice);
}

/** With a terminal that is put back, and a place for temporary files that is cleared away, however it ends. */
async function runSupervised(
  options: RunOptions,
  job: JobDirectory,
  holder: LeaseHolder | undefined,
  plan: Plan,
  signals: CaughtSignals,
  voice: Voice,
): Promise<RunOutcome> {
  const { log, startedAtMs } = voice;
  const criu = await signals.unlessEnded(findCriu({ env: process.env, privileged: isPrivileged() }));
  if (criu.warning !== undefined) log.warn(criu.warning);
  const temporary = options.container ? temporaryDirectory(job.path) : {};
  const terminal = openTerminal(log);
  const hooks: RunHooks = {
    ...voice.hooks,
    onReady: (generation) => {
      terminal.handOver();
      voice.hooks.onReady?.(generation);
    },
  };
  try {
    const about = { job, holder, plan, criu, temporary, terminal: terminal.outer, startedAtMs };
    const config = supervisorConfig(options, { ...about, mayBeToldToLeave: hooks.pilot !== undefined }, log);
    const life = (): Promise<RunOutcome> => supervise(config, plan, job, signals, { ...voice, hooks });
    return await (hooks.around?.(life) ?? life());
  } finally {
    terminal.restore();
    const left = temporary.temporaryDirectory && removeTemporaryDirectory(temporary.temporaryDirectory);
    if (left) log.warn(left.message);
  }
}

/** A place for temporary files, or why there is none: most applications can do without. */
function temporaryDirectory(jobDirectory: string): TemporaryPlace {
  try {
    return { temporaryDirectory: makeTemporaryDirectory(jobDirectory, process.env) };
  } catch (error) {
    return { temporaryProblem: toErrorRecord(error) };
  }
}

function finishedBefore(exitCode: number | null): RunOutcome {
  return { exitCode: exitCode ?? 0, reason: FINISHED_BEFORE };
}

function nothingToRun(url: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'run',
    subject: url,
    reason: 'there is no image to restore, and no command to start',
    hint: 'give the command after --',
  });
}
