// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import type { CpuBudget } from '../engine/config.js';
import { lastName } from '../store/job-url.js';
import { openStore } from '../store/store.js';
import { shellWords } from './shell-words.js';

/** `POST /run`, and the file of `--exec`. */
export interface RunRequest extends CommonRequest {
  /** Empty: restore, or run nothing. */
  readonly command: readonly string[];
  readonly imageUrl: string;
  /** The job's name, which follows from the URL. */
  readonly name: string;
  readonly onAppReady?: string;
  readonly noRestore: boolean;
  readonly allowBadImage: boolean;
  readonly leaveStopped: boolean;
}

/** `POST /checkpoint`. */
export interface CheckpointRequest extends CommonRequest {
  readonly imageUrl?: string;
  readonly leaveRunning: boolean;
  readonly numShards?: number;
  readonly cpuBudget?: CpuBudget;
}

interface CommonRequest {
  readonly passphraseFile?: string;
  readonly preservedPaths?: readonly string[];
  readonly verbose: number;
  readonly envs: Readonly<Record<string, string>>;
}

/** Throws `usage`, naming the field, for anything that is not exactly a request. */
export function parseRunRequest(body: string): RunRequest {
  const fields = readFields(body, [
    ...COMMON,
    'app_args',
    'on_app_ready',
    'no_restore',
    'allow_bad_image',
    'leave_stopped',
  ]);
  const imageUrl = imageUrlOf(fields) ?? missing('image_url');
  return {
    ...commonOf(fields),
    command: fields.take('app_args', commandWords) ?? missing('app_args'),
    imageUrl,
    name: nameOf(imageUrl),
    ...optional('onAppReady', fields.take('on_app_ready', text)),
    noRestore: fields.take('no_restore', flag) ?? false,
    allowBadImage: fields.take('allow_bad_image', flag) ?? false,
    leaveStopped: fields.take('leave_stopped', flag) ?? false,
  };
}

/** As `parseRunRequest`. All is optional: an empty body asks for a checkpoint too. */
export function parseCheckpointRequest(body: string): CheckpointRequest {
  const fields = readFields(body.trim() === '' ? '{}' : body, [...COMMON, 'leave_running', 'num_shards', 'cpu_budget']);
  return {
    ...commonOf(fields),
    ...optional('imageUrl', imageUrlOf(fields)),
    leaveRunning: fields.take('leave_running', flag) ?? false,
    ...optional('numShards', fields.take('num_shards', wholeNumber(1, 65535))),
    ...optional('cpuBudget', fields.take('cpu_budget', cpuBudget)),
  };
}

const COMMON = ['image_url', 'passphrase_file', 'preserved_paths', 'verbose', 'envs'];

function commonOf(fields: Fields): CommonRequest {
  return {
    ...optional('passphraseFile', fields.take('passphrase_file', nonEmpty)),
    ...optional('preservedPaths', fields.take('preserved_paths', paths)),
    verbose: fields.take('verbose', wholeNumber(0, 255)) ?? 0,
    envs: fields.take('envs', environment) ?? {},
  };
}

interface Fields {
  /** The field's value, checked; undefined when it is not given, or null. */
  take<T>(name: string, check: (value: unknown, field: string) => T): T | undefined;
}

function readFields(body: string, known: readonly string[]): Fields {
  const values = new Map<string, unknown>(Object.entries(readObject(body)));
  const unknown = [...values.keys()].find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw wrong(JSON.stringify(unknown.slice(0, 100)), 'there is no such field', `the fields are ${known.join(', ')}`);
  }
  return {
    take: (name, check) => {
      const value: unknown = values.get(name) ?? undefined;
      return value === undefined ? undefined : check(value, name);
    },
  };
}

function readObject(body: string): object {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    // Which character it was is of no use to whoever forgot a quote in a shell, and the text may hold secrets.
    throw wrong('the request', 'it is not JSON', 'send one JSON object');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw wrong('the request', `expected a JSON object, not ${kindOf(value)}`, 'send one JSON object');
  }
  return value;
}

function imageUrlOf(fields: Fields): string | undefined {
  return fields.take('image_url', (value, field) => {
    const url = nonEmpty(value, field);
    try {
      openStore(url);
    } catch (error) {
      throw wrong(field, asFastFreezeError(error, 'use').reason);
    }
    return url;
  });
}

function nameOf(url: string): string {
  const name = lastName(url);
  // What `run` takes for the name of a job.
  if (name !== '' && name.length <= 100 && !/[/\0]/u.test(name)) return name;
  throw wrong('image_url', 'its last part must be a name of 1 to 100 characters');
}

function commandWords(value: unknown, field: string): readonly string[] {
  if (Array.isArray(value)) {
    const words = value.map((word) => text(word, field));
    if (words[0] === '') throw wrong(field, 'the command is an empty word');
    return words;
  }
  if (typeof value !== 'string') throw wrong(field, `expected a string or an array of strings, not ${kindOf(value)}`);
  const words = shellWords(text(value, field));
  if (words === undefined) throw wrong(field, 'a quote is not closed, or a backslash has nothing after it');
  if (words[0] === '') throw wrong(field, 'the command is an empty word');
  return words;
}

function paths(value: unknown, field: string): readonly string[] {
  if (typeof value === 'string') return [nonEmpty(value, field)];
  if (Array.isArray(value)) return value.map((path) => nonEmpty(path, field));
  throw wrong(field, `expected a string of paths with : between them, or an array of strings, not ${kindOf(value)}`);
}

function environment(value: unknown, field: string): Readonly<Record<string, string>> {
  if (!Array.isArray(value)) throw wrong(field, `expected an array of "NAME=VALUE", not ${kindOf(value)}`);
  const pairs = value.map((item, i) => {
    const pair = text(item, field);
    const end = pair.indexOf('=');
    // The item is not shown: it may be a secret that somebody forgot to name.
    if (end < 1) throw wrong(field, `item ${i + 1} is not "NAME=VALUE"`);
    const name = pair.slice(0, end);
    if (LOOKED_FOR.includes(name))
      throw wrong(field, `${name} would hide the job from the daemon`, `set it for ff_daemon`);
    return [name, pair.slice(end + 1)] as const;
  });
  return Object.fromEntries(pairs);
}

/** They decide where a job is found. */
const LOOKED_FOR = ['FF_STATE_DIR', 'XDG_RUNTIME_DIR'];

function text(value: unknown, field: string): string {
  if (typeof value !== 'string') throw wrong(field, `expected a string, not ${kindOf(value)}`);
  if (value.includes('\0')) throw wrong(field, 'a null character cannot be passed on');
  // A lone surrogate has no UTF-8.
  if (/\p{Surrogate}/u.test(value)) throw wrong(field, 'it is not Unicode text');
  return value;
}

function nonEmpty(value: unknown, field: string): string {
  const given = text(value, field);
  if (given === '') throw wrong(field, 'it is empty');
  return given;
}

function flag(value: unknown, field: string): boolean {
  if (typeof value === 'boolean') return value;
  throw wrong(field, `expected true or false, not ${kindOf(value)}`);
}

function wholeNumber(least: number, most: number): (value: unknown, field: string) => number {
  return (value, field) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value;
    const given = typeof value === 'number' ? String(value) : kindOf(value);
    throw wrong(field, `expected a whole number from ${least} to ${most}, not ${given}`);
  };
}

function cpuBudget(value: unknown, field: string): CpuBudget {
  if (value === 'low' || value === 'medium' || value === 'high') return value;
  throw wrong(field, 'expected "low", "medium" or "high"');
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

function optional<K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> {
  return value === undefined ? {} : ({ [key]: value } as Record<K, V>);
}

function missing(field: string): never {
  throw wrong(field, 'it is missing');
}

function wrong(subject: string, reason: string, hint = 'docs/ff-daemon.md lists the fields'): FastFreezeError {
  return new FastFreezeError({ code: 'usage', op: 'understand', subject, reason, hint });
}
