// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { FastFreezeError } from '../base/errors.js';
import type { Inputs } from './inputs.js';

/**
 * Files of the runner's that a command writes to, and the name of ours for each. The runner's are of one step; a command that continues in
 * another run still has the names that it was started with.
 */
const RUNNER_FILES = {
  GITHUB_OUTPUT: 'output',
  GITHUB_ENV: 'env',
  GITHUB_PATH: 'path',
  GITHUB_STEP_SUMMARY: 'summary',
} as const;

/** What the engine makes for the command's life. */
export interface Script {
  /** It and what else the command is to write to lie here. Travels in the image. */
  readonly directory: string;
  readonly path: string;
  readonly text: string;
}

export interface CommandFiles {
  readonly script: Script;
  readonly command: readonly string[];
  /** For the command's environment. */
  readonly variables: Readonly<Record<string, string>>;
}

/**
 * The script and the files of the runner's, by name, in a directory that has the same path in each run of the job, on every machine.
 * Nothing is written yet: a run of the same job may be using them.
 */
export function nameCommandFiles({ run, shell }: Pick<Inputs, 'run' | 'shell'>, imageUrl: string): CommandFiles {
  const directory = join('/tmp', `fastfreeze-action-${sha256(imageUrl).slice(0, 16)}`);
  const text = `${run.replace(/\n+$/, '')}\n`;
  // Another script is another command: an image of the old one says so.
  const script = join(directory, `script-${sha256(text).slice(0, 8)}`);
  const variables = Object.entries(RUNNER_FILES).map(([name, file]) => [name, join(directory, file)] as const);
  return {
    script: { directory, path: script, text },
    command: shellCommand(shell, script),
    variables: Object.fromEntries(variables),
  };
}

/** Makes the files for `work`, which the job is this run's for, and removes them after it. */
export async function withCommandFiles<T>(script: Script, work: () => Promise<T>): Promise<T> {
  const { directory, path, text } = script;
  makePrivate(directory);
  // What a run that was killed has left, half a line at the end perhaps. An image brings its own.
  for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true });
  try {
    writeFileSync(path, text, { mode: 0o600 });
    for (const file of Object.values(RUNNER_FILES)) writeFileSync(join(directory, file), '', { mode: 0o600 });
    return await work();
  } finally {
    removeCommandFiles(script);
  }
}

export function removeCommandFiles({ directory }: Script): void {
  rmSync(directory, { recursive: true, force: true });
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** What the command's files hold at its end. */
export type CommandWords = Readonly<Partial<Record<keyof typeof RUNNER_FILES, string>>>;

export function readCommandWords({ directory }: Script): CommandWords {
  const found = Object.entries(RUNNER_FILES).map(([name, file]) => [name, join(directory, file)] as const);
  return Object.fromEntries(
    found.filter(([, path]) => existsSync(path)).map(([name, path]) => [name, readFileSync(path, 'utf8')] as const),
  );
}

/**
 * What the command has written goes to the runner's own files. The last line is ended, since our outputs follow in the same file; what the
 * runner could not read would take them along, and is left out. The summary is not among them: see `handSummary`.
 */
export function handToRunner(words: CommandWords, env: NodeJS.ProcessEnv, warn: (message: string) => void): void {
  for (const name of ['GITHUB_OUTPUT', 'GITHUB_ENV', 'GITHUB_PATH'] as const) {
    const text = words[name] ?? '';
    const problem = name === 'GITHUB_PATH' ? undefined : wrongPair(text);
    if (problem === undefined) append(env[name], text);
    else warn(`What the command wrote to ${name} is left out: ${problem}.`);
  }
}

/** After our own, which is written anew each time and would overwrite it. */
export function handSummary(words: CommandWords, env: NodeJS.ProcessEnv): void {
  append(env['GITHUB_STEP_SUMMARY'], words.GITHUB_STEP_SUMMARY ?? '');
}

function append(path: string | undefined, text: string): void {
  if (path === undefined || path === '' || text === '') return;
  appendFileSync(path, text.endsWith('\n') ? text : `${text}\n`);
}

/** What the runner would refuse in `name=value` and `name<<DELIMITER`, lines, `DELIMITER`; undefined: nothing. */
export function wrongPair(text: string): string | undefined {
  const lines = text.split(/\r?\n/);
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at] ?? '';
    if (line === '') continue;
    const [, sign, rest = ''] = /^.+?(=|<<)(.*)$/.exec(line) ?? [];
    if (sign === undefined || /^(?:=|<<)/.test(line))
      return `${JSON.stringify(line)} is neither NAME=VALUE nor NAME<<DELIMITER`;
    if (sign === '=') continue;
    const end = lines.indexOf(rest, at + 1);
    if (rest === '' || end < 0) return `the value that ${JSON.stringify(line)} begins has no end`;
    at = end;
  }
  return undefined;
}

/** As the runner itself starts its shells. */
function shellCommand(shell: string, script: string): string[] {
  const known: Readonly<Record<string, string>> = {
    bash: 'bash --noprofile --norc -e -o pipefail {0}',
    sh: 'sh -e {0}',
    python: 'python3 {0}',
  };
  const template = known[shell];
  if (template === undefined && !shell.includes('{0}')) {
    throw new FastFreezeError({
      code: 'usage',
      op: 'use the input',
      subject: `shell: ${JSON.stringify(shell)}`,
      reason: 'it is not known here',
      hint: 'bash, sh, python, or a command line with {0}, such as: perl {0}',
    });
  }
  return (template ?? shell)
    .trim()
    .split(/\s+/)
    .map((word) => word.replace('{0}', script));
}

/** Anybody may write to /tmp: what stands there must be ours. */
function makePrivate(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const stat = lstatSync(directory);
  if (stat.isDirectory() && stat.uid === process.getuid?.() && (stat.mode & 0o022) === 0) return;
  throw new FastFreezeError({
    code: 'conflict',
    op: 'use the directory',
    subject: directory,
    reason: 'it is not a directory of this user alone',
    hint: `remove it: sudo rm -r ${directory}`,
  });
}
