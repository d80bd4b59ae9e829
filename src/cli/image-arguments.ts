// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { type Store, openStore } from '../store/store.js';
import { type ParsedArguments, flagOption, parseOptions, textOption, wrongValue } from './arguments.js';
import { passphraseOption } from './passphrase.js';
import { sayWaiting } from './waiting.js';

export interface ImageArguments {
  readonly store: Store;
  readonly which: number | 'newest' | 'all';
  readonly json: boolean;
  readonly passphrase: string | undefined;
}

/** The words of a command that looks at one image: `[--generation N | --all] [--json] URL`. */
export function imageArguments(
  args: readonly string[],
  command: string,
  options: Parameters<typeof parseOptions>[1],
): ImageArguments {
  const parsed = parseOptions(args, options, false);
  const store = openStore(urlArgument(parsed, command), sayWaiting);
  return {
    store,
    which: generationArgument(parsed),
    json: flagOption(parsed, 'json'),
    passphrase: passphraseOption(parsed),
  };
}

/** The one URL that a command takes. */
export function urlArgument(parsed: ParsedArguments, command: string): string {
  const [url, extra] = parsed.rest;
  if (url !== undefined && extra === undefined) return url;
  throw new FastFreezeError({
    code: 'usage',
    op: command,
    reason: 'exactly one URL is needed',
    hint: `fastfreeze ${command} file:/path`,
  });
}

/** `--generation N`, `--all`, or neither: the newest. */
export function generationArgument(parsed: ParsedArguments): number | 'newest' | 'all' {
  const text = textOption(parsed, 'generation');
  const all = flagOption(parsed, 'all');
  if (text === undefined) return all ? 'all' : 'newest';
  if (all) throw wrongValue('generation', text, 'give either it or --all');
  return generationNumber(text);
}

/** `--generation N`, where without it the newest is meant. */
export function generationOption(parsed: ParsedArguments): number | undefined {
  const text = textOption(parsed, 'generation');
  return text === undefined ? undefined : generationNumber(text);
}

/** As many digits as the names of manifests may have. */
function generationNumber(text: string): number {
  const value = Number(text);
  if (!/^\d{1,15}$/.test(text) || value < 1) throw wrongValue('generation', text, 'expected a whole number from 1');
  return value;
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}
