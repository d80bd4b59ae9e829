// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { FastFreezeError } from '../base/errors.js';
import { valueOf } from '../batch/system.js';
import { workflowFile } from './identity.js';

/** Name of the workflow's input that tells a run which chain it belongs to. */
export const CHAIN_INPUT = 'fastfreeze';

/** A chain of runs that continue one job. */
export interface Chain {
  /** Of the first run, which the job's ID is made of. */
  readonly rootRunId: string;
  /** Which of the runs this is, from 1. */
  readonly run: number;
  /** That the run before has left; 0: none. */
  readonly generation: number;
  /** Runs in a row, up to the one before, that have brought the command no further. */
  readonly stalls: number;
}

export interface RunEvent {
  readonly inputs: Readonly<Record<string, unknown>>;
  /** Undefined where the event does not say. */
  readonly isPrivate: boolean | undefined;
}

const MOST_STALLS = 2;
const TRIES = 4;
const RETRY_MS = 1_000;
const REQUEST_TIMEOUT_MS = 30_000;

/** What started this run of the workflow. */
export function readEvent(env: NodeJS.ProcessEnv): RunEvent {
  const path = valueOf(env, 'GITHUB_EVENT_PATH');
  const event = path === undefined ? {} : (JSON.parse(readFileSync(path, 'utf8')) as Readonly<Record<string, unknown>>);
  const repository = asRecord(event['repository']);
  const isPrivate = repository['private'];
  return { inputs: asRecord(event['inputs']), isPrivate: typeof isPrivate === 'boolean' ? isPrivate : undefined };
}

/** The chain that this run continues; undefined for one that a person or an event has started. */
export function readChain({ inputs }: RunEvent): Chain | undefined {
  const text = inputs[CHAIN_INPUT];
  if (typeof text !== 'string' || text === '') return undefined;
  const [, rootRunId, run, generation, stalls] = /^(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text) ?? [];
  if (rootRunId !== undefined) {
    return { rootRunId, run: Number(run), generation: Number(generation), stalls: Number(stalls) };
  }
  throw new FastFreezeError({
    code: 'usage',
    op: 'understand the workflow input',
    subject: `${CHAIN_INPUT}: ${JSON.stringify(text)}`,
    reason: 'it is not what a run before this one would have given',
    hint: 'leave it empty: fastfreeze fills it when it starts the workflow again',
  });
}

/** What a run has made of its chain. */
export interface Made {
  /** The newest image; 0: there is none. */
  readonly generation: number;
  /** In words; undefined where the command has got further. */
  readonly whyStalled: string | undefined;
}

/** The next link; throws where there must be none. */
export function nextLink(chain: Chain, { generation, whyStalled }: Made, maxRuns: number): Chain {
  const why = generation > chain.generation ? whyStalled : 'there is no new checkpoint';
  const stalls = why === undefined ? 0 : chain.stalls + 1;
  // A run that somebody starts has another ID, and would begin another job.
  const byHand = `start the workflow by hand with ${CHAIN_INPUT}: ${textOf({ ...chain, run: 1, generation, stalls: 0 })}, which continues it`;
  if (chain.run >= maxRuns)
    throw refuse(`this was run ${chain.run} of at most ${maxRuns}`, `${byHand}; or raise max-runs`);
  if (why !== undefined && stalls >= MOST_STALLS) {
    throw refuse(
      `${stalls} runs in a row have made no progress; in this one ${why}`,
      `see the log: the command may be stuck, or the time not suffice to restore the image and to save it again. To go on all the same, ${byHand}`,
    );
  }
  return { rootRunId: chain.rootRunId, run: chain.run + 1, generation, stalls };
}

/** Start the workflow again, with the inputs of this run. Resolves to the new run's page, or that of the workflow where GitHub does not say. */
export async function dispatch(env: NodeJS.ProcessEnv, token: string, event: RunEvent, next: Chain): Promise<string> {
  const [api, server, repository, ref] = [
    env['GITHUB_API_URL'] ?? 'https://api.github.com',
    env['GITHUB_SERVER_URL'] ?? 'https://github.com',
    env['GITHUB_REPOSITORY'] ?? '',
    env['GITHUB_REF'] ?? '',
  ];
  const file = workflowFile(env);
  if (file === undefined) throw refuse('GITHUB_WORKFLOW_REF does not name the workflow', 'use on-checkpoint: fail');
  if (!/^refs\/(?:heads|tags)\//.test(ref)) {
    throw refuse(`${ref} is neither a branch nor a tag`, 'pull requests cannot be dispatched: use on-checkpoint: fail');
  }
  const inputs = { ...event.inputs, [CHAIN_INPUT]: textOf(next) };
  const answer = await post(
    `${api}/repos/${repository}/actions/workflows/${encodeURIComponent(file)}/dispatches`,
    token,
    { ref: ref.replace(/^refs\/(?:heads|tags)\//, ''), inputs, return_run_details: true },
  );
  const page = asRecord(answer)['html_url'];
  return typeof page === 'string' ? page : `${server}/${repository}/actions/workflows/${file}`;
}

/** As `readChain` takes it. */
function textOf({ rootRunId, run, generation, stalls }: Chain): string {
  return [rootRunId, run, generation, stalls].join('.');
}

async function post(url: string, token: string, body: object): Promise<unknown> {
  for (let attempt = 1; ; attempt += 1) {
    const response = await send(url, token, body);
    if (response.ok) return response.status === 204 ? undefined : await response.json();
    const text = await response.text();
    // Whether it was done is known: it was not. After no answer at all it is not known, and twice would be two runs.
    const isPassing = response.status === 429 || response.status === 502 || response.status === 503;
    if (!isPassing || attempt === TRIES) throw refused(response.status, text);
    await sleep(RETRY_MS * 2 ** attempt);
  }
}

async function send(url: string, token: string, body: object): Promise<Response> {
  try {
    return await fetch(url, {
      method: 'POST',
      headers: {
        accept: 'application/vnd.github+json',
        authorization: `Bearer ${token}`,
        'content-type': 'application/json',
        'x-github-api-version': '2022-11-28',
      },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw refuse(
      `GitHub's API gave no answer (${reason})`,
      'see whether the next run has started all the same; else run this job again: it continues',
    );
  }
}

function refused(status: number, text: string): FastFreezeError {
  const said = messageIn(text);
  const reason = `GitHub's API answered ${status}${said === '' ? '' : `: ${said}`}`;
  if (status === 401 || status === 403) {
    return refuse(reason, "give the job `permissions: actions: write`; a fork's pull request cannot have it");
  }
  if (status === 404) return refuse(reason, 'the workflow must be on the default branch, and the token see it');
  if (status === 422) {
    return refuse(reason, `the workflow needs on: workflow_dispatch with an input named ${CHAIN_INPUT}, not required`);
  }
  return refuse(reason, 'run this job again: it continues');
}

/** What GitHub says; empty where something before it has answered, which need not speak JSON. */
function messageIn(text: string): string {
  try {
    const message = asRecord(JSON.parse(text))['message'];
    return typeof message === 'string' ? message : '';
  } catch {
    return '';
  }
}

function refuse(reason: string, hint: string): FastFreezeError {
  return new FastFreezeError({ code: 'host', op: 'start the workflow again', reason, hint });
}

function asRecord(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}
