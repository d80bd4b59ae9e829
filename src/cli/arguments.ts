// SPDX-License-Identifier: Apache-2.0
import { resolve } from 'node:path';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { FastFreezeError } from '../base/errors.js';
import type { LogFormat, Verbosity } from '../base/log.js';
import type { CpuBudget } from '../engine/config.js';

type Options = NonNullable<ParseArgsConfig['options']>;

export interface ParsedArguments {
  readonly values: Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;
  /** Words that are no options: positional arguments, or the application's command. */
  readonly rest: readonly string[];
}

/**
 * Parse one command's words. With `stopAtFirst`, options end at `--` or at the first word that is none, and all that
 * follows belongs to the application, its own options included.
 */
export function parseOptions(args: readonly string[], options: Options, stopAtFirst: boolean): ParsedArguments {
  const end = stopAtFirst ? endOfOptions(args, options) : args.length;
  const own = args.slice(0, end);
  const command = args[end] === '--' ? args.slice(end + 1) : args.slice(end);
  try {
    const parsed = parseArgs({ args: own, options, allowPositionals: !stopAtFirst, strict: true });
    return { values: parsed.values, rest: stopAtFirst ? command : parsed.positionals };
  } catch (error) {
    throw new FastFreezeError({
      code: 'usage',
      op: 'understand the command line',
      reason: error instanceof Error ? (error.message.split('. ')[0] ?? error.message) : String(error),
      hint: 'see --help',
      cause: error,
    });
  }
}

export function textOption(parsed: ParsedArguments, name: string): string | undefined {
  const value = parsed.values[name];
  return typeof value === 'string' ? value : undefined;
}

/** A path, made absolute. An empty one, of a variable that is not set, would be this directory: refused. */
export function pathOption(parsed: ParsedArguments, name: string): string | undefined {
  const text = textOption(parsed, name);
  if (text === '') throw wrongValue(name, text, 'expected a path');
  return text === undefined ? undefined : resolve(text);
}

export function flagOption(parsed: ParsedArguments, name: string): boolean {
  return parsed.values[name] === true;
}

export function verbosityOption(parsed: ParsedArguments): Verbosity {
  const given = parsed.values['verbose'];
  const times = Array.isArray(given) ? given.length : 0;
  return times === 0 ? 0 : times === 1 ? 1 : 2;
}

export function logFormatOption(parsed: ParsedArguments): LogFormat {
  const text = textOption(parsed, 'log-format') ?? 'text';
  if (text === 'text' || text === 'json') return text;
  throw wrongValue('log-format', text, 'expected text or json');
}

/** A whole number of at least `least`; the default when the option is not given. */
export function countOption(parsed: ParsedArguments, name: string, fallback: number, least: number): number {
  const text = textOption(parsed, name);
  if (text === undefined) return fallback;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > 65535) {
    throw wrongValue(name, text, `expected a whole number from ${least} to 65535`);
  }
  return value;
}

/** `90`, `90s`, `5m`, `1h30m`, `500ms`: milliseconds. A bare number counts seconds. */
export function durationOption(parsed: ParsedArguments, name: string, minMs = 1): number | undefined {
  const text = textOption(parsed, name);
  if (text === undefined) return undefined;
  const durationMs = parseDuration(text);
  if (durationMs === undefined || durationMs < minMs) {
    throw wrongValue(name, text, 'expected a duration such as 90s, 5m or 1h30m');
  }
  return durationMs;
}

export function parseDuration(text: string): number | undefined {
  if (/^\d+(\.\d+)?$/.test(text)) return Math.round(Number(text) * 1000);
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) return undefined;
  const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
  let total = 0;
  for (const [, amount, , unit] of text.matchAll(/(\d+(\.\d+)?)(ms|s|m|h|d)/g)) {
    total += Number(amount) * (units[unit ?? ''] ?? 0);
  }
  return Math.round(total);
}

export function cpuBudgetOption(parsed: ParsedArguments): CpuBudget | undefined {
  const text = textOption(parsed, 'cpu-budget');
  if (text === undefined || text === 'low' || text === 'medium' || text === 'high') return text;
  throw wrongValue('cpu-budget', text, 'expected low, medium or high');
}

export function wrongValue(name: string, value: string, reason: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'understand',
    subject: `--${name} ${JSON.stringify(value)}`,
    reason,
    hint: 'see --help',
  });
}

/**
 * Of the words of a command that takes an application's, its own: `subcommands` at most that come first, and options. An
 * application's `--help` is not ours.
 */
export function ownWords(args: readonly string[], options: Options, subcommands = 0): readonly string[] {
  const option = args.slice(0, subcommands).findIndex((word) => word.startsWith('-'));
  const from = option === -1 ? Math.min(subcommands, args.length) : option;
  return args.slice(0, from + endOfOptions(args.slice(from), options));
}

function endOfOptions(args: readonly string[], options: Options): number {
  for (let i = 0; i < args.length; i++) {
    const word = args[i] ?? '';
    if (word === '--' || !word.startsWith('-') || word === '-') return i;
    if (takesNextWord(word, options)) i++;
  }
  return args.length;
}

/** Whether an option's value is the word after it: not when it is part of the same (`--name=x`, `-nx`). */
function takesNextWord(word: string, options: Options): boolean {
  if (word.startsWith('--')) return !word.includes('=') && options[word.slice(2)]?.type === 'string';
  const letters = Array.from(word.slice(1));
  const first = letters.findIndex((letter) => options[longName(letter, options)]?.type === 'string');
  return first === letters.length - 1 && first >= 0;
}

function longName(letter: string, options: Options): string {
  return Object.entries(options).find(([, option]) => option.short === letter)?.[0] ?? '';
}
