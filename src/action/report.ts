// SPDX-License-Identifier: Apache-2.0
import { error as annotateError, info, notice, setOutput, summary, warning } from '@actions/core';
import { asFastFreezeError } from '../base/errors.js';
import { INTERRUPTED } from '../engine/config.js';
import { tellCredentials } from './credentials.js';
import type { EngineEvent, EngineResult } from './engine-task.js';
import { withHint } from './failure.js';
import { refuseReadOnly } from '../store/cache/settings.js';
import { EXIT_CHECKPOINTED, type Outcome, TOLD_TO_END, outcomeOf, outputs } from './outcome.js';
import type { Plan } from './plan.js';
import { isCache } from './place.js';
import { whyNoProgress } from './progress.js';
import { dispatch, nextLink } from './redispatch.js';
import { type Story, summaryText } from './summary.js';

/** What the step goes by, for its log. */
export function announce(plan: Plan): void {
  const { inputs, chain, jobId, imageUrl, task } = plan;
  info(`Job ${jobId}, images at ${imageUrl}`);
  if (chain.run > 1) info(`Run ${chain.run} of at most ${inputs.maxRuns}, which continues run ${chain.rootRunId}`);
  if (isCache(imageUrl) && inputs.passphrase === undefined && plan.event.isPrivate !== true) {
    warning(
      'Whoever can open a pull request can read the cache of the branch that it is for, and so the memory of the command. Try: passphrase: ${{ secrets.NAME }}',
      { title: 'fastfreeze: the image is not encrypted' },
    );
  }
  if (isCache(imageUrl)) warnReadOnly(imageUrl);
  tellCredentials({ imageUrl, envScrub: inputs.envScrub }, process.env, plan.endsAtMs);
  const { deadline } = task;
  if (deadline !== undefined) {
    const when = new Date(deadline.atMs).toISOString();
    info(deadline.of === 'start' ? `It is frozen at ${when}` : `Its image is to be safe by ${when}`);
  }
  if (task.noticeFrom.length > 0) info(`Asked whether the machine is taken away: ${task.noticeFrom.join(', ')}`);
}

/** The command runs all the same; but that nothing of it will be saved is better known now than after six hours. */
function warnReadOnly(imageUrl: string): void {
  try {
    refuseReadOnly(imageUrl, process.env);
  } catch (error) {
    const { message, hint } = asFastFreezeError(error, 'look at the cache');
    warning(withHint(message, hint), { title: 'fastfreeze: no checkpoint can be saved' });
  }
}

/** Tells of a checkpoint that has failed while the command runs, when those before have not: of one that fails again and again, once. */
export function failureTeller(endLine: () => Promise<void>): (events: readonly EngineEvent[]) => Promise<void> {
  let seen = 0;
  let isFailing = false;
  return async (events) => {
    for (const event of events.slice(seen)) {
      if (event.type === 'checkpoint') isFailing = false;
      if (event.type !== 'checkpoint-failed') continue;
      if (!isFailing) {
        await endLine();
        warning(`${event.message}. The command runs on, and what was saved before stays.`, {
          title: 'fastfreeze: a checkpoint has failed',
        });
      }
      isFailing = true;
    }
    seen = events.length;
  };
}

/** Outputs, annotation, summary, and where that is wanted the next run. Resolves to the exit code. */
export async function conclude(
  plan: Plan,
  events: readonly EngineEvent[],
  result: EngineResult,
  interrupted: boolean,
): Promise<number> {
  const outcome = outcomeOf(events, result);
  for (const event of events) if (event.type === 'warning') warning(event.message, { title: 'fastfreeze' });
  const ending = await endingOf(plan, events, result, outcome, interrupted);
  for (const [name, value] of Object.entries(outputs(outcome, plan.imageUrl, ending.nextRunUrl)))
    setOutput(name, value);
  await writeStory(plan, events, ending);
  return ending.exitCode;
}

interface Ending {
  readonly exitCode: number;
  readonly why: string;
  readonly next: string;
  readonly nextRunUrl: string;
}

async function endingOf(
  plan: Plan,
  events: readonly EngineEvent[],
  result: EngineResult,
  outcome: Outcome,
  interrupted: boolean,
): Promise<Ending> {
  const { exitCode } = result;
  if (result.how === 'failed') {
    const message = result.error?.message ?? 'it failed';
    annotateError(withHint(message, result.error?.hint), { title: 'fastfreeze: failed' });
    return { exitCode, why: `Failed: ${message}.`, next: 'What was saved before stays.', nextRunUrl: '' };
  }
  if (result.how === 'ended' && !outcome.ran) {
    const why = `An earlier run has ended the command, with exit code ${exitCode}: it was not run again.`;
    const next = 'To run it again, give another job-id, or remove the image.';
    const tell = exitCode === 0 ? notice : annotateError;
    tell(`${why} ${next}`, { title: 'fastfreeze: the result of an earlier run' });
    return { exitCode, why, next, nextRunUrl: '' };
  }
  if (result.how === 'ended') {
    if (exitCode === 0)
      return {
        exitCode,
        why: 'The command has ended with exit code 0.',
        next: 'Nothing is left to do.',
        nextRunUrl: '',
      };
    annotateError(`The command has ended with exit code ${exitCode}.`, { title: 'fastfreeze: the command failed' });
    return { exitCode, why: `The command has ended with exit code ${exitCode}.`, next: '', nextRunUrl: '' };
  }
  return await frozenEnding(plan, events, frozenWhy(events, result), outcome, interrupted);
}

async function frozenEnding(
  plan: Plan,
  events: readonly EngineEvent[],
  why: string,
  outcome: Outcome,
  interrupted: boolean,
): Promise<Ending> {
  const { inputs } = plan;
  const told = { why, nextRunUrl: '' };
  const again = outcome.generation === 0 ? 'Run the job again: it starts.' : 'Run the job again: it continues.';
  const title = 'fastfreeze: interrupted, not failed';
  if (interrupted || inputs.onCheckpoint === 'fail') {
    warning(`${why} ${again}`, { title });
    return { ...told, exitCode: EXIT_CHECKPOINTED, next: again };
  }
  if (inputs.onCheckpoint === 'succeed') {
    notice(`${why} ${again}`, { title });
    return { ...told, exitCode: 0, next: again };
  }
  try {
    const made = { generation: outcome.generation, whyStalled: whyNoProgress(events) };
    const link = nextLink(plan.chain, made, inputs.maxRuns);
    const nextRunUrl = await dispatch(process.env, inputs.githubToken, plan.event, link);
    const next = `Run ${link.run} continues it: ${nextRunUrl}`;
    notice(`${why} ${next}`, { title });
    return { why, exitCode: 0, next, nextRunUrl };
  } catch (error) {
    const known = asFastFreezeError(error, 'start the workflow again');
    annotateError(`${why} ${withHint(known.message, known.hint)}`, {
      title: 'fastfreeze: interrupted, and not continued',
    });
    return { ...told, exitCode: EXIT_CHECKPOINTED, next: `${again} (${known.message})` };
  }
}

function frozenWhy(events: readonly EngineEvent[], { reason, error }: EngineResult): string {
  if (reason === INTERRUPTED) return TOLD_TO_END;
  const asked = events.findLast((event) => event.type === 'asked');
  const saved = events.findLast((event) => event.type === 'checkpoint');
  if (saved === undefined) return `Interrupted before the command ran (${error?.reason ?? 'told to leave'}).`;
  return `Frozen as checkpoint ${saved.generation} (${asked?.source ?? 'asked to'}).`;
}

/** The summary as it stands; it is written anew after each checkpoint. */
export async function writeStory(
  plan: Plan,
  events: readonly EngineEvent[],
  ending: Pick<Story, 'why' | 'next'> | undefined,
): Promise<void> {
  if (!plan.inputs.summary || (process.env['GITHUB_STEP_SUMMARY'] ?? '') === '') return;
  const { jobId, imageUrl, startedAtMs } = plan;
  const told = ending ?? { why: 'The command runs.', next: '' };
  const text = summaryText({
    jobId,
    imageUrl,
    startedAtMs,
    endedAtMs: Date.now(),
    events,
    why: told.why,
    next: told.next,
  });
  await summary.emptyBuffer().addRaw(text).write({ overwrite: true });
}
