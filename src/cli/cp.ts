// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { type CopyResult, copyVerified } from '../image/copy.js';
import { chooseGenerations, listGenerations } from '../image/generations.js';
import { keysWith } from '../engine/passphrase.js';
import { openStore } from '../store/store.js';
import { flagOption, parseOptions } from './arguments.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { generationArgument, printJson } from './image-arguments.js';
import { passphraseOption } from './passphrase.js';
import { sizeText } from './text.js';
import { sayWaiting } from './waiting.js';

const OPTIONS = {
  generation: { type: 'string' },
  all: { type: 'boolean' },
  'passphrase-file': { type: 'string' },
  json: { type: 'boolean' },
} as const;

export const cpCommand: Command = {
  name: 'cp',
  summary: 'Copy an image to another URL',
  help: `Usage: fastfreeze cp [OPTIONS] SRC-URL DST-URL

Copies the newest generation of the job at SRC-URL to DST-URL, under its number.
The copy is read back and every chunk of it checked before it is committed: it is
there whole and right, or not at all. A generation that is there already is left
as it is; one of the same number that is another one is refused.

Options:
      --generation N         this generation, not the newest
      --all                  every generation, the oldest first
      --passphrase-file FILE the passphrase of encrypted images (or FF_PASSPHRASE)
      --json                 print the result as JSON

Exit status:
    0  the copy is durable, or was there already
  170  it failed, or the destination holds another generation of that number
  171  the source is damaged, or the copy was read back otherwise
    2  the command line is wrong
`,
  async run(args) {
    const parsed = parseOptions(args, OPTIONS, false);
    const [source, destination] = urls(parsed.rest);
    const from = openStore(source, sayWaiting);
    const to = openStore(destination, sayWaiting);
    const which = generationArgument(parsed);
    if (from.url === to.url) throw wrong('both URLs name the same place');
    const json = flagOption(parsed, 'json');
    const keysOf = keysWith(passphraseOption(parsed));
    const generations: CopyResult[] = [];
    try {
      for (const generation of await chooseGenerations(from, which)) {
        const result = await copyVerified(from, to, generation, keysOf);
        generations.push(result);
        if (!json) process.stdout.write(describe(result, to.url));
      }
    } catch (error) {
      if (!(error instanceof FastFreezeError) || error.code !== 'image') throw error;
      process.stderr.write(`Error: ${error.message}\n${error.hint === undefined ? '' : `Try: ${error.hint}\n`}`);
      return EXIT.restoreFailed;
    }
    const newest = (await listGenerations(to)).at(-1) ?? 0;
    const copied = generations.at(-1)?.generation ?? newest;
    if (newest > copied) {
      process.stderr.write(`Note: generation ${newest} is there too; 'run' continues from the newest\n`);
    }
    if (json) printJson({ sourceUrl: from.url, destinationUrl: to.url, generations });
    return EXIT.ok;
  },
};

function urls(words: readonly string[]): readonly [string, string] {
  const [source, destination, extra] = words;
  if (source === undefined || destination === undefined || extra !== undefined) {
    throw wrong('a source URL and a destination URL are needed');
  }
  return [source, destination];
}

function wrong(reason: string): FastFreezeError {
  const hint = 'fastfreeze cp file:/from file:/to';
  return new FastFreezeError({ code: 'usage', op: 'copy', reason, hint });
}

function describe({ generation, outcome, copiedBytes }: CopyResult, url: string): string {
  if (outcome === 'present') return `Generation ${generation} is already at ${url}\n`;
  return `Generation ${generation}: ${sizeText(copiedBytes)} copied to ${url} and verified\n`;
}
