// SPDX-License-Identifier: Apache-2.0
import { resolve } from 'node:path';
import { getInput, getMultilineInput } from '@actions/core';
import { FastFreezeError } from '../base/errors.js';
import { valueOf } from '../batch/system.js';
import { parseDuration } from '../cli/arguments.js';
import { wrongPatterns } from '../container/app-env.js';
import { parseCpuBaseline } from '../container/cpu-baseline.js';
import type { CpuBudget } from '../engine/config.js';
import { isBelow } from '../files/roots.js';
import { type Cloud, isCloud } from '../notice/sources/clouds.js';

/** What the user wants; durations in milliseconds. */
export interface Inputs {
  readonly run: string;
  readonly shell: string;
  readonly workingDirectory: string;
  readonly envScrub: readonly string[];
  readonly jobId: string;
  readonly imageUrl: string;
  readonly imageBase: string;
  readonly timeoutMs: number;
  /** Milliseconds since the epoch. */
  readonly jobStartedAtMs: number | undefined;
  readonly checkpointBeforeMs: number | 'auto';
  readonly checkpointEveryMs: number | 'auto' | undefined;
  readonly cpuBudget: CpuBudget;
  /** Undefined: what suits the runner. */
  readonly cpuBaseline: string | undefined;
  /** Absolute. */
  readonly preservePaths: readonly string[];
  /** Absolute. */
  readonly preserveExcept: readonly string[];
  readonly passphrase: string | undefined;
  readonly onCheckpoint: OnCheckpoint;
  readonly maxRuns: number;
  readonly keepImage: boolean;
  /** Undefined: those of the cloud that the runner is found to be in. */
  readonly notices: readonly Cloud[] | undefined;
  readonly criu: { readonly url: string; readonly sha256: string } | undefined;
  readonly githubToken: string;
  readonly summary: boolean;
  readonly matrix: string;
  readonly jobStatus: string;
}

export type OnCheckpoint = 'fail' | 'succeed' | 'redispatch';

const MS_PER_MINUTE = 60_000;
/** A self-hosted job may take five days; more is a mistake. */
const MOST_TIMEOUT_MINUTES = 35 * 24 * 60;
const MOST_RUNS = 1000;
/** As long as the name of a job may be. */
const MOST_JOB_ID = 100;

/** Everything is looked at before anything is done. Throws `usage` with the input's name and value. */
export function readInputs(): Inputs {
  const inputs: Inputs = {
    run: getInput('run', { trimWhitespace: false }),
    shell: getInput('shell') || 'bash',
    workingDirectory: getInput('working-directory'),
    envScrub: patterns(),
    jobId: getInput('job-id'),
    imageUrl: getInput('image-url'),
    imageBase: getInput('image-base'),
    timeoutMs: minutes('timeout-minutes'),
    jobStartedAtMs: moment('job-started-at'),
    checkpointBeforeMs: durationOr('checkpoint-before', 'auto') ?? 'auto',
    checkpointEveryMs: durationOr('checkpoint-every', 'auto'),
    cpuBudget: oneOf('cpu-budget', ['low', 'medium', 'high']),
    cpuBaseline: baseline(),
    preservePaths: preservePaths(),
    preserveExcept: preserveExcept(),
    passphrase: getInput('passphrase', { trimWhitespace: false }) || undefined,
    onCheckpoint: oneOf('on-checkpoint', ['fail', 'succeed', 'redispatch']),
    maxRuns: count('max-runs', MOST_RUNS),
    keepImage: truth('keep-image'),
    notices: notices(),
    criu: criu(),
    githubToken: getInput('github-token'),
    summary: truth('summary'),
    matrix: getInput('matrix'),
    jobStatus: getInput('job-status'),
  };
  if (inputs.run.trim() === '') throw wrong('run', '', 'it is empty', 'give the command: run: ./train.sh');
  if (/\{0\}/.test(inputs.shell) === /^\w+$/.test(inputs.shell)) {
    throw wrong(
      'shell',
      inputs.shell,
      'it is neither a name nor a command line with {0}',
      'bash, sh, python, perl {0}',
    );
  }
  if (inputs.jobId.length > MOST_JOB_ID) {
    throw wrong('job-id', inputs.jobId, `it is longer than ${MOST_JOB_ID} characters`, 'a shorter one');
  }
  if (inputs.checkpointBeforeMs !== 'auto' && inputs.checkpointBeforeMs >= inputs.timeoutMs) {
    const reason = 'the job would be frozen before it begins: it is not less than timeout-minutes';
    throw wrong('checkpoint-before', getInput('checkpoint-before'), reason, 'a shorter time, or auto');
  }
  if (inputs.imageUrl !== '' && (inputs.imageBase !== '' || inputs.jobId !== '')) {
    const reason = 'it names the place whole, and image-base or job-id is given as well';
    throw wrong('image-url', inputs.imageUrl, reason, 'give image-url, or image-base and perhaps job-id');
  }
  const covering = inputs.preserveExcept.find((one) =>
    inputs.preservePaths.some((path) => path === one || isBelow(path, one)),
  );
  if (covering !== undefined) {
    throw wrong('preserve-except', covering, 'nothing would be left of preserve-path', 'a path below it');
  }
  return inputs;
}

/** Those that the post step needs. */
export function readPostInputs(): Pick<Inputs, 'jobStatus' | 'summary'> {
  return { jobStatus: getInput('job-status'), summary: getInput('summary') !== 'false' };
}

function patterns(): string[] {
  const given = getMultilineInput('env-scrub');
  const [bad] = wrongPatterns(given);
  if (bad === undefined) return given;
  throw wrong('env-scrub', bad, 'it is no name of a variable', 'one pattern a line, such as AWS_* or !GITHUB_TOKEN');
}

/** Of the variable, not of `github.workspace`: that is the host's path, also in a job container. */
function preservePaths(): string[] {
  const workspace = workspaceOf(process.env);
  const given = getMultilineInput('preserve-path');
  if (given.length === 1 && given[0] === 'none') return [];
  return (given.length === 0 ? ['.'] : given).map((path) => resolve(workspace, path));
}

function preserveExcept(): string[] {
  return getMultilineInput('preserve-except').map((path) => resolve(workspaceOf(process.env), path));
}

/** The folder that the runner has made for the repository. */
export function workspaceOf(env: NodeJS.ProcessEnv): string {
  return valueOf(env, 'GITHUB_WORKSPACE') ?? process.cwd();
}

function minutes(name: string): number {
  const text = getInput(name);
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && value > 0 && value <= MOST_TIMEOUT_MINUTES) return value * MS_PER_MINUTE;
  throw wrong(
    name,
    text,
    `expected minutes, more than 0 and at most ${MOST_TIMEOUT_MINUTES}`,
    'the same as the job has',
  );
}

function moment(name: string): number | undefined {
  const text = getInput(name);
  if (text === '') return undefined;
  const atMs = /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : NaN;
  if (!Number.isNaN(atMs)) return atMs;
  throw wrong(name, text, 'expected a time in ISO 8601', 'date -u +%Y-%m-%dT%H:%M:%SZ, in the first step of the job');
}

function durationOr(name: string, word: 'auto'): number | 'auto' | undefined {
  const text = getInput(name);
  if (text === '') return undefined;
  if (text === word) return word;
  const durationMs = parseDuration(text);
  if (durationMs !== undefined && durationMs > 0) return durationMs;
  throw wrong(name, text, `expected ${word} or a duration`, 'such as 90s, 20m or 1h30m');
}

function oneOf<T extends string>(name: string, words: readonly T[]): T {
  const text = getInput(name);
  const found = words.find((word) => word === text);
  if (found !== undefined) return found;
  throw wrong(name, text, 'there is no such choice', `one of ${words.join(', ')}`);
}

function baseline(): string | undefined {
  const text = getInput('cpu-baseline');
  if (text === 'auto' || text === '') return undefined;
  if (parseCpuBaseline(text) !== undefined) return text;
  throw wrong(
    'cpu-baseline',
    text,
    'there is no such baseline',
    'auto, host, x86-64-v2, x86-64-v3, x86-64-v4 or fleet:FILE',
  );
}

function count(name: string, most: number): number {
  const text = getInput(name);
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= most) return value;
  throw wrong(name, text, `expected a whole number from 1 to ${most}`, `leave it out for the default`);
}

function truth(name: string): boolean {
  const text = getInput(name);
  if (text === 'true' || text === 'false') return text === 'true';
  throw wrong(name, text, 'expected true or false', 'leave it out for the default');
}

function notices(): Cloud[] | undefined {
  const text = getInput('notices');
  if (text === 'auto') return undefined;
  if (text === 'none' || text === '') return [];
  return text.split(',').map((word) => {
    const cloud = word.trim();
    if (isCloud(cloud)) return cloud;
    throw wrong(
      'notices',
      text,
      `${JSON.stringify(cloud)} is none that can be asked`,
      'auto, none, or ec2, gce, azure',
    );
  });
}

function criu(): Inputs['criu'] {
  const [url, sha256] = [getInput('criu-url'), getInput('criu-sha256')];
  if (url === '' && sha256 === '') return undefined;
  if (url === '') throw wrong('criu-url', url, 'criu-sha256 is given without it', 'give both, or neither');
  if (/^[0-9a-f]{64}$/i.test(sha256)) return { url, sha256 };
  throw wrong('criu-sha256', sha256, 'expected 64 hexadecimal digits', 'fastfreeze install --bundle prints the sum');
}

function wrong(name: string, value: string, reason: string, hint: string): FastFreezeError {
  const subject = `${name}: ${JSON.stringify(value)}`;
  return new FastFreezeError({ code: 'usage', op: 'use the input', subject, reason, hint });
}
