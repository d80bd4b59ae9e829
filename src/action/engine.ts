// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError, toErrorRecord } from '../base/errors.js';
import { type Logger, createLogger } from '../base/log.js';
import { parseOptions } from '../cli/arguments.js';
import { RUN_OPTIONS, toRunOptions } from '../cli/run-options.js';
import { CHECKPOINTED, INTERRUPTED } from '../engine/config.js';
import { EXIT } from '../engine/exit-codes.js';
import type { JobEvent } from '../engine/metrics/event.js';
import type { Pilot, RunningJob } from '../engine/pilot.js';
import { type RunOutcome, run } from '../engine/run.js';
import { dropJob } from '../image/drop.js';
import { type PilotOptions, createPilot } from '../notice/pilot.js';
import { cloudSources } from '../notice/sources/clouds.js';
import { momentSource, timeLimitSource } from '../notice/sources/local.js';
import { openStore } from '../store/store.js';
import { type CommandWords, readCommandWords, removeCommandFiles, withCommandFiles } from './command-files.js';
import { isCache } from './place.js';
import { measureFrom } from './progress.js';
import { type EngineResult, type EngineTask, LAST_TRY, tellEvent } from './engine-task.js';
import { LastTry } from './last-try.js';

/** What a cancelled run leaves to the step that follows: see `CANCEL_BUDGET_MS` of the post step. */
const SIGNAL_WINDOW_MS = 240_000;

/**
 * `fastfreeze batch run` for a step: the same engine, notices and planner, with what happens told to a file. `handOnSignals` is called
 * when signals are listened to.
 */
export async function runEngine(task: EngineTask, handOnSignals: () => void): Promise<EngineResult> {
  const { directory, imageUrl, passphrase, script } = task;
  const parsed = parseOptions([...task.options, '--', ...task.command], RUN_OPTIONS, true);
  const options = {
    ...toRunOptions(parsed, { url: imageUrl, given: true }),
    // A record that was kept is the result; any other is of a run before, which somebody has chosen to repeat.
    returnFinished: task.keepImage,
    shellExitCodes: true,
    cliArgs: ['fastfreeze-action'],
    ...(passphrase === undefined ? {} : { passphrase }),
  };
  const log = createLogger({ command: 'action', verbosity: options.verbosity, startedAtMs: Date.now() });
  const pilot = tellingPilot(task, createPilot(pilotOptions(task, log)));
  const seen: { hasRun: boolean; words?: CommandWords } = { hasRun: false };
  const running = run(options, {
    pilot,
    onReady: (restoredGeneration) => {
      seen.hasRun = true;
      tellEvent(directory, { type: 'ready', restoredGeneration });
    },
    onEvent: (event) => tellCheckpoint(directory, event),
    around: (life) =>
      withCommandFiles(script, async () => {
        const outcome = await life();
        if (resultOf(outcome).how === 'ended') seen.words = readCommandWords(script);
        return outcome;
      }),
  });
  handOnSignals();
  const outcome = await running.catch(endedEarly);
  const { words } = seen;
  const result = { ...resultOf(outcome), ...(words === undefined ? {} : { words }) };
  if (result.how === 'ended' && seen.hasRun && !task.keepImage && !isCache(imageUrl))
    await dropAfterwards(imageUrl, directory);
  return result;
}

function pilotOptions(task: EngineTask, log: Logger): PilotOptions {
  const { checkpointEvery, deadline } = task;
  const limit =
    deadline === undefined
      ? []
      : deadline.of === 'start'
        ? [momentSource(deadline.atMs, 'checkpoint-before')]
        : [timeLimitSource(deadline.atMs, 'the time limit of the job')];
  return {
    sources: [...limit, ...task.noticeFrom.flatMap((cloud) => cloudSources(cloud, process.env))],
    stopSignals: ['SIGINT', 'SIGTERM', 'SIGUSR1'],
    signalWindowMs: SIGNAL_WINDOW_MS,
    timer: checkpointEvery === 'auto' ? 'always' : checkpointEvery === undefined ? 'when-needed' : 'never',
    ...(typeof checkpointEvery === 'number' ? { everyMs: checkpointEvery } : {}),
    log,
  };
}

/** Why each checkpoint is made is known to the pilot alone. */
function tellingPilot(task: EngineTask, pilot: Pilot): Pilot {
  const { directory } = task;
  let running: RunningJob | undefined;
  const lastTry = new LastTry({
    askJob: () => running?.status() ?? Promise.resolve(),
    giveUp: (failure) => giveUp(task, failure),
  });
  return {
    ready: (job: RunningJob) => {
      running = job;
      const ranUntilNow = measureFrom(job);
      void warnOfOther(task, job);
      pilot.ready({
        status: () => job.status(),
        checkpoint: async (request) => {
          const { source, leaveRunning } = request;
          const ran = await ranUntilNow();
          tellEvent(directory, {
            type: 'asked',
            source,
            leavesRunning: leaveRunning,
            ...(ran === undefined ? {} : { ran }),
          });
          const made = (): ReturnType<RunningJob['checkpoint']> => job.checkpoint(request);
          return await (leaveRunning ? made() : lastTry.attempt(made));
        },
      });
    },
    signal: (name) => {
      if (name !== LAST_TRY) return pilot.signal(name);
      lastTry.begin();
      return true;
    },
    stop: () => pilot.stop(),
  };
}

/** It runs on, and would do so when the job is long over. Our end is its end. */
function giveUp({ directory, script }: EngineTask, failure: string): void {
  const error = new FastFreezeError({
    code: 'app',
    op: 'freeze the command, which was ended',
    reason: failure,
    hint: 'run the job again: it continues from the last checkpoint, if there is one',
  });
  tellEvent(directory, { type: 'ended', exitCode: 170, how: 'failed', error: toErrorRecord(error) });
  removeCommandFiles(script);
  process.kill(process.pid, 'SIGKILL');
}

/** An image goes on as what it is, whatever `run` says by now. */
async function warnOfOther({ directory, command }: EngineTask, job: RunningJob): Promise<void> {
  try {
    const running = (await job.status()).command;
    if (running.join('\0') === command.join('\0')) return;
  } catch {
    return; // It has ended by now.
  }
  const message =
    '`run` or `shell` has changed since the image was made, and the old command goes on. Give another job-id to start the new one.';
  tellEvent(directory, { type: 'warning', message });
}

function tellCheckpoint(directory: string, event: JobEvent): void {
  if (event.action !== 'checkpoint') return;
  const { transfer, generation, frozenMs } = event;
  if (event.error !== undefined) tellEvent(directory, { type: 'checkpoint-failed', message: event.error });
  else if (transfer !== undefined && generation !== undefined) {
    const { rawBytes, storedBytes, durationMs } = transfer;
    tellEvent(directory, {
      type: 'checkpoint',
      generation,
      rawBytes,
      storedBytes,
      frozenMs: frozenMs ?? 0,
      durableMs: durationMs,
    });
  }
}

/** Told to leave while the job was still being prepared: the same as a moment later. */
function endedEarly(error: unknown): RunOutcome {
  if (error instanceof FastFreezeError && error.code === 'aborted') return { exitCode: EXIT.failed, error };
  throw error;
}

function resultOf({ exitCode, reason, killedBy, ...outcome }: RunOutcome): EngineResult {
  const error = outcome.error ?? (killedBy === undefined || reason === INTERRUPTED ? undefined : killed(killedBy));
  const isAbort = error?.code === 'aborted';
  const how =
    reason === CHECKPOINTED || reason === INTERRUPTED || isAbort ? 'frozen' : error === undefined ? 'ended' : 'failed';
  return {
    exitCode,
    how,
    ...(reason === undefined ? {} : { reason }),
    ...(error === undefined ? {} : { error: toErrorRecord(error) }),
  };
}

/** By whoever had no memory left, mostly. Its images are what the job has. */
function killed(signal: string): FastFreezeError {
  return new FastFreezeError({
    code: 'app',
    op: 'go on with the command',
    reason: `${signal} has killed it`,
    hint: 'run the job again: it continues from the last checkpoint, if there is one',
  });
}

/** The job has come to its end, whatever becomes of its images. */
async function dropAfterwards(imageUrl: string, directory: string): Promise<void> {
  try {
    await dropJob(openStore(imageUrl));
  } catch (error) {
    const { message } = asFastFreezeError(error, 'remove the images in', imageUrl);
    tellEvent(directory, { type: 'warning', message: `${message}; they take space until they are removed` });
  }
}
