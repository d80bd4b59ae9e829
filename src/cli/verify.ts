// SPDX-License-Identifier: Apache-2.0
import { chooseGenerations } from '../image/generations.js';
import { type Verified, verifyGeneration } from '../image/verify.js';
import { keysWith } from '../engine/passphrase.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { imageArguments, printJson } from './image-arguments.js';
import { plain, sizeText } from './text.js';

const OPTIONS = {
  generation: { type: 'string' },
  all: { type: 'boolean' },
  'passphrase-file': { type: 'string' },
  json: { type: 'boolean' },
} as const;

export const verifyCommand: Command = {
  name: 'verify',
  summary: 'Read an image whole and say what is damaged',
  help: `Usage: fastfreeze verify [OPTIONS] URL

Reads the manifest, the index and every chunk of an image, and checks all that a
restore would check. Names each damaged object, and where in it. Nothing is
changed.

Options:
      --generation N         this generation, not the newest
      --all                  every generation
      --passphrase-file FILE the passphrase of encrypted images (or FF_PASSPHRASE)
      --json                 print the result as JSON

Exit status:
    0  everything is there and right
  170  there is no such image, or the store cannot be read
  171  something is damaged or missing
    2  the command line is wrong
`,
  async run(args) {
    const { store, which, json, passphrase } = imageArguments(args, 'verify', OPTIONS);
    const keysOf = keysWith(passphrase);
    const generations: Verified[] = [];
    for (const generation of await chooseGenerations(store, which)) {
      const verified = await verifyGeneration(store, generation, keysOf);
      generations.push(verified);
      if (!json) process.stdout.write(describe(verified));
    }
    const ok = generations.every((one) => one.damage.length === 0);
    if (json) printJson({ ok, imageUrl: store.url, generations });
    return ok ? EXIT.ok : EXIT.restoreFailed;
  },
};

function describe({ generation, state, chunks, storedBytes, rawBytes, damage }: Verified): string {
  if (damage.length === 0) {
    if (state === 'finished') return `Generation ${generation}: ok, the job has finished and there is no image\n`;
    return `Generation ${generation}: ok, ${chunks} chunks, ${sizeText(storedBytes)} stored, ${sizeText(rawBytes)} raw\n`;
  }
  const lines = damage.map(({ object, offset, reason }) => {
    const where = offset === null ? '' : ` at offset ${offset}`;
    return `  ${plain(object)}${where}: ${plain(reason)}\n`;
  });
  return `Generation ${generation}: damaged\n${lines.join('')}`;
}
