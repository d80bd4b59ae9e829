// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { DefinitionRequest, Pair } from '../batch/definition.js';
import { jobUrl } from '../store/job-url.js';
import { isFileUrl, openStore } from '../store/store.js';
import {
  type ParsedArguments,
  countOption,
  durationOption,
  parseOptions,
  textOption,
  wrongValue,
} from './arguments.js';
import { BATCH_OPTIONS, requeueOption } from './batch.js';
import { RUN_OPTIONS } from './run-options.js';

/** Options that both definitions have. */
export const DEFINITION_OPTIONS = {
  image: { type: 'string' },
  'image-base': { type: 'string' },
  vcpus: { type: 'string' },
  memory: { type: 'string' },
  'time-limit': { type: 'string' },
  env: { type: 'string', multiple: true },
} as const;

/** What a system allows. */
export interface Limits {
  readonly leastLimitMs: number;
  /** Why neither a variable nor an option of `batch run` names the job. */
  readonly noJobId: string;
  /** Variables of the system's own. */
  readonly reserved: RegExp;
  /** The option that names labels, and what of them it does not take. */
  readonly labels: { readonly option: string; readonly wrong: (pair: Pair) => string | undefined };
}

const GIVE_BEFORE = 'give it before the first --';
/** Options of `batch run` that a definition says by itself. */
const NOT_FOR_RUN: Readonly<Record<string, string>> = {
  'image-url': 'all tasks and jobs would be one: give --image-base before the first --',
  'image-base': GIVE_BEFORE,
  'time-limit': GIVE_BEFORE,
  resubmit: GIVE_BEFORE,
  json: 'it belongs to batch explain',
};

/** Reads and checks what both definitions have. `attempts` are runs in all. */
export function definitionRequest(parsed: ParsedArguments, attempts: number, limits: Limits): DefinitionRequest {
  const { words, requeueExitCode } = runWords(parsed.rest, limits);
  return {
    words,
    imageBase: imageBase(parsed),
    vcpus: countOption(parsed, 'vcpus', 1, 1),
    memoryMib: memory(parsed),
    ...timeLimit(parsed, limits),
    attempts,
    requeueExitCode,
    variables: variables(parsed, limits),
    labels: labels(parsed, limits),
  };
}

/** The one system that a definition is for, as the first word. Returns the words after it. */
export function theSystem(args: readonly string[], verb: string, name: string): readonly string[] {
  const [word, ...rest] = args;
  if (word === name) return rest;
  throw new FastFreezeError({
    code: 'usage',
    op: 'understand the command line',
    reason: `batch ${verb} needs the word ${name}${word === undefined ? '' : `, not ${JSON.stringify(word)}`}`,
    hint: `fastfreeze batch ${verb} ${name} --help`,
  });
}

export function needed(parsed: ParsedArguments, name: string, what: string): string {
  const text = textOption(parsed, name);
  if (text !== undefined && text !== '') return text;
  throw missing(name, what);
}

export function missing(name: string, what: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'write the definition',
    reason: `--${name} is missing`,
    hint: `--${name} ${what}`,
  });
}

/** A text of a form that the system takes; undefined where it is not given. */
export function formOption(parsed: ParsedArguments, name: string, form: RegExp, expected: string): string | undefined {
  const text = textOption(parsed, name);
  if (text === undefined || form.test(text)) return text;
  throw wrongValue(name, text, `expected ${expected}`);
}

/** A whole number that the system takes. */
export function rangeOption(parsed: ParsedArguments, name: string, range: Range): number {
  const { fallback, least, most } = range;
  const count = countOption(parsed, name, fallback, least);
  if (count <= most) return count;
  throw wrongValue(name, String(count), `expected a whole number from ${least} to ${most}`);
}

export interface Range {
  readonly fallback: number;
  readonly least: number;
  readonly most: number;
}

/** Warns where an attempt may get another image of the container than the one before. */
export function warnOfTag(image: string): void {
  if (image.includes('@sha256:')) return;
  process.stderr.write(
    `Warning: ${image} is no digest: an image that is pushed while a job runs has its next attempt refuse to continue (171)\n` +
      `Try: NAME@sha256:..., as docker image inspect --format '{{.RepoDigests}}' shows it\n`,
  );
}

/** Prints it so that prettier would leave it as it is: lists of plain values on one line, where they fit. */
export function printJson(value: unknown): void {
  process.stdout.write(`${format(value, '', 0)}\n`);
}

const LINE_WIDTH = 120;

/** `used`: characters before it on its line, beside the indentation. */
function format(value: unknown, indent: string, used: number): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const inner = `${indent}  `;
  if (!Array.isArray(value)) {
    const lines = Object.entries(value).map(([name, one]) => {
      const head = `${JSON.stringify(name)}: `;
      return `${inner}${head}${format(one, inner, head.length)}`;
    });
    return lines.length === 0 ? '{}' : `{\n${lines.join(',\n')}\n${indent}}`;
  }
  const line = `[${value.map((one) => JSON.stringify(one)).join(', ')}]`;
  const isPlain = value.every((one) => typeof one !== 'object');
  // A comma may follow.
  if (isPlain && indent.length + used + line.length < LINE_WIDTH) return line;
  return `[\n${value.map((one) => `${inner}${format(one, inner, 0)}`).join(',\n')}\n${indent}]`;
}

/** The words for `batch run`: those of its options that stand before the command are looked at, so that no job fails of them. */
function runWords(rest: readonly string[], { noJobId }: Limits): { words: readonly string[]; requeueExitCode: number } {
  const run = parseOptions(rest, { ...RUN_OPTIONS, ...BATCH_OPTIONS }, true);
  const [program] = run.rest;
  if (program === undefined || program === '') {
    throw new FastFreezeError({
      code: 'usage',
      op: 'write the definition',
      reason: 'there is no command for the job',
      hint: 'end with -- COMMAND [ARGS...], as in the container',
    });
  }
  const [wrong] = Object.entries({ ...NOT_FOR_RUN, 'job-id': noJobId }).filter(([name]) => name in run.values);
  if (wrong !== undefined) {
    const [name, reason] = wrong;
    throw wrongValue(name, textOption(run, name) ?? '', `as an option of batch run: ${reason}`);
  }
  return { words: rest, requeueExitCode: requeueOption(run) };
}

/** A bucket: what a container keeps in a directory goes with it. */
function imageBase(parsed: ParsedArguments): string {
  const text = needed(parsed, 'image-base', 's3://BUCKET/PATH or gs://BUCKET/PATH, where the images of all jobs go');
  if (isFileUrl(openStore(jobUrl(text, 'any')).url)) {
    throw wrongValue('image-base', text, 'a directory would be gone with the machine; expected s3:// or gs://');
  }
  return text;
}

function memory(parsed: ParsedArguments): number {
  const text = needed(parsed, 'memory', 'M, in MiB or as 16G');
  const [, amount = '', unit] = /^(\d{1,8})(M|G)?$/u.exec(text) ?? [];
  const mib = Number(amount) * (unit === 'G' ? 1024 : 1);
  if (mib > 0) return mib;
  throw wrongValue('memory', text, 'expected MiB, or GiB as 16G');
}

function timeLimit(parsed: ParsedArguments, { leastLimitMs }: Limits): { timeLimitMs?: number } {
  const durationMs = durationOption(parsed, 'time-limit');
  if (durationMs === undefined) return {};
  const text = textOption(parsed, 'time-limit') ?? '';
  if (durationMs % 1000 !== 0) throw wrongValue('time-limit', text, 'expected whole seconds');
  if (durationMs >= leastLimitMs) return { timeLimitMs: durationMs };
  throw wrongValue('time-limit', text, `expected ${leastLimitMs / 1000}s or more`);
}

function variables(parsed: ParsedArguments, { reserved, noJobId }: Limits): Pair[] {
  return pairs(parsed, 'env', ([name]) => {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/u.test(name)) return 'expected NAME=VALUE';
    if (reserved.test(name)) return 'the system keeps names like this for itself';
    return name === 'FASTFREEZE_JOB_ID' ? noJobId : OURS[name];
  });
}

const IS_OPTION = 'an option of this command says it';
/** Variables that a definition does not set, and why. */
const OURS: Readonly<Record<string, string>> = {
  FASTFREEZE_IMAGE_BASE: IS_OPTION,
  FASTFREEZE_TIME_LIMIT: IS_OPTION,
  FASTFREEZE_RESUBMIT: IS_OPTION,
  FASTFREEZE_RESUBMITTED: 'it is counted by itself',
};

function labels(parsed: ParsedArguments, { labels: { option, wrong } }: Limits): Pair[] {
  return pairs(parsed, option, wrong);
}

function pairs(parsed: ParsedArguments, option: string, wrong: (pair: Pair) => string | undefined): Pair[] {
  const given = parsed.values[option];
  const found = (Array.isArray(given) ? given.map(String) : []).map((text): Pair => {
    const at = text.indexOf('=');
    const pair: Pair = [text.slice(0, Math.max(at, 0)), text.slice(at + 1)];
    const reason = at < 1 ? 'expected NAME=VALUE' : wrong(pair);
    if (reason !== undefined) throw wrongValue(option, text, reason);
    return pair;
  });
  const twice = found.find(([name], i) => found.findIndex(([other]) => other === name) !== i);
  if (twice !== undefined) throw wrongValue(option, twice.join('='), `${twice[0]} is given twice`);
  return found;
}
