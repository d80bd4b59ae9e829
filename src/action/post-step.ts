// SPDX-License-Identifier: Apache-2.0
import { endGroup, error as annotateError, info, startGroup, summary, warning } from '@actions/core';
import { rmSync } from 'node:fs';
import { asFastFreezeError } from '../base/errors.js';
import { INTERRUPTED } from '../engine/config.js';
import { tellTimeIsUp, tellToLeave } from './engine-process.js';
import type { EngineEvent, EngineResult } from './engine-task.js';
import { type Handover, readHandover } from './handover.js';
import { readPostInputs } from './inputs.js';
import { TOLD_TO_END } from './outcome.js';
import { summaryText } from './summary.js';
import { type Watched, watchEngine, writeOut } from './watch.js';

/**
 * From the cancellation of a job to its worker's end: GitHub gives five minutes, and the runner kills its worker 15 s before. Main's ten
 * seconds count, and other steps' post steps come after ours.
 */
const CANCEL_BUDGET_MS = 285_000;
const OTHER_STEPS_MS = 30_000;
/** For the engine, to end what cannot be frozen. After a signal the runner gives us ten seconds in all. */
const LAST_WORD_MS = 4_000;

/** Where main had to leave: wait for the image. Resolves to the exit code. */
export async function runPost(): Promise<number> {
  const startedAtMs = Date.now();
  const toldToEnd = catchEnd();
  try {
    const found = readHandover();
    if (found === undefined) return 0;
    const { jobStatus, summary: wantsSummary } = readPostInputs();
    const { handover, interruptedAtMs, shownBytes } = found;
    // Main may have been killed before it could. The same again is no news.
    await tellToLeave(handover.engine);
    const untilMs = budget(jobStatus, handover, interruptedAtMs ?? startedAtMs);
    startGroup('fastfreeze: waiting for the image');
    info(`Until ${new Date(untilMs).toISOString()}`);
    const watched = await waitForEngine(handover, untilMs, toldToEnd, shownBytes).finally(endGroup);
    if (watched.hiddenBytes > 0) warning(`${watched.hiddenBytes} bytes of its output are not shown: the time was up.`);
    if (wantsSummary) await writeSummary(handover, watched, startedAtMs);
    return settle(handover, watched, interruptedAtMs ?? startedAtMs);
  } catch (error) {
    const known = asFastFreezeError(error, 'wait for the image');
    annotateError(known.message, { title: 'fastfreeze' });
    return 1;
  }
}

/** The runner's signals end us, and nothing else: the engine has been told, and goes on for as long as its machine is there. */
function catchEnd(): AbortSignal {
  const told = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (told.signal.aborted) return;
      info(`${name}: nothing is waited for any more`);
      told.abort();
    });
  }
  return told.signal;
}

async function waitForEngine(
  { engine }: Handover,
  untilMs: number,
  signal: AbortSignal,
  shownBytes: number,
): Promise<Watched> {
  const watched = await watchEngine(engine, { untilMs, signal, show: writeOut, shownBytes });
  if (watched.result !== undefined) return watched;
  tellTimeIsUp(engine);
  return await watchEngine(engine, {
    untilMs: Date.now() + LAST_WORD_MS,
    show: writeOut,
    shownBytes: watched.shownBytes,
  });
}

/** Until when to wait: a cancelled job has its budget; a step that timed out has what is left of the job. Milliseconds since the epoch. */
export function budget(
  jobStatus: string,
  { jobEndsAtMs }: Pick<Handover, 'jobEndsAtMs'>,
  interruptedAtMs: number,
): number {
  const cancelledMs = interruptedAtMs + CANCEL_BUDGET_MS - OTHER_STEPS_MS;
  return jobStatus === 'cancelled' ? cancelledMs : Math.max(cancelledMs, jobEndsAtMs - OTHER_STEPS_MS);
}

/** Since the command was to be frozen that has failed: it runs on, and would do so when the job is long over. */
export function failureSince(events: readonly EngineEvent[], sinceMs: number): string | undefined {
  const failed = events.findLast((event) => event.type === 'checkpoint-failed');
  return failed !== undefined && failed.atMs >= sinceMs ? failed.message : undefined;
}

function settle({ engine }: Handover, { events, result }: Watched, interruptedAtMs: number): number {
  const failure = failureSince(events, interruptedAtMs);
  if (result === undefined) {
    const before = failure === undefined ? '' : ` An attempt has failed before: ${failure}.`;
    warning(
      `The image is not complete, and the time is up.${before} On a self-hosted runner it is finished in the background; if that fails, the command is ended.`,
      { title: 'fastfreeze: interrupted' },
    );
    return 0;
  }
  rmSync(engine.directory, { recursive: true, force: true });
  const saved = events.findLast((event) => event.type === 'checkpoint');
  if (result.how === 'failed') {
    annotateError(result.error?.message ?? 'it failed', { title: 'fastfreeze: failed' });
    return 1;
  }
  warning(sayEnd(result, saved?.generation), { title: 'fastfreeze: interrupted, not failed' });
  return 0;
}

function sayEnd({ how, reason, exitCode, error }: EngineResult, generation: number | undefined): string {
  if (how === 'failed') return `Failed: ${error?.message ?? 'it failed'}.`;
  if (reason === INTERRUPTED) return `${TOLD_TO_END} Run the job again: it starts, or continues where it was saved.`;
  if (how === 'ended') return `The command has ended with exit code ${exitCode} while it was being frozen.`;
  if (generation === undefined)
    return 'Interrupted before the command ran. Run the job again: it starts, or continues where it was.';
  return `Frozen as checkpoint ${generation}. Run the job again: it continues.`;
}

async function writeSummary(
  { jobId, imageUrl }: Handover,
  { events, result }: Watched,
  startedAtMs: number,
): Promise<void> {
  if ((process.env['GITHUB_STEP_SUMMARY'] ?? '') === '') return;
  const generation = events.findLast((event) => event.type === 'checkpoint')?.generation;
  const why = result === undefined ? 'The image was not complete in time.' : sayEnd(result, generation);
  const from = events[0]?.atMs ?? startedAtMs;
  const text = summaryText({ jobId, imageUrl, startedAtMs: from, endedAtMs: Date.now(), events, why, next: '' });
  await summary.addRaw(text).write({ overwrite: true });
}
