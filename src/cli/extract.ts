// SPDX-License-Identifier: Apache-2.0
import { resolve } from 'node:path';
import { FastFreezeError } from '../base/errors.js';
import { createLogger } from '../base/log.js';
import { extract } from '../engine/extract.js';
import { lastName } from '../store/job-url.js';
import { flagOption, parseOptions, pathOption, textOption, verbosityOption } from './arguments.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { generationOption } from './image-arguments.js';
import { passphraseOption } from './passphrase.js';
import { sayWaiting } from './waiting.js';

const OPTIONS = {
  'image-url': { type: 'string', short: 'i' },
  'output-dir': { type: 'string', short: 'o' },
  generation: { type: 'string' },
  'allow-bad-image-version': { type: 'boolean' },
  'passphrase-file': { type: 'string' },
  json: { type: 'boolean' },
  verbose: { type: 'boolean', short: 'v', multiple: true },
} as const;

export const extractCommand: Command = {
  name: 'extract',
  summary: "Write an image's files to a local directory",
  help: `Usage: fastfreeze extract [OPTIONS] [--image-url] URL

Writes the CRIU image files of a checkpoint into a directory that 'criu restore'
accepts and CRIU's tools read. Every byte is verified.

Options:
  -i, --image-url URL        the image; may also be given as the only word
  -o, --output-dir DIR       a new or empty directory [the URL's last component]
      --generation N         this generation, not the newest
      --allow-bad-image-version
                             try an image of another format version
      --passphrase-file FILE the passphrase of encrypted images (or FF_PASSPHRASE)
      --json                 print the result as JSON
  -v, --verbose              name each file and its size

Exit status:
    0  extracted
  170  the image is missing or damaged, or the directory cannot be written
    2  the command line is wrong
`,
  async run(args) {
    const parsed = parseOptions(args, OPTIONS, false);
    const [word, extra] = parsed.rest;
    const option = textOption(parsed, 'image-url');
    const url = option ?? word;
    if (url === undefined || extra !== undefined || (option !== undefined && word !== undefined)) {
      throw new FastFreezeError({
        code: 'usage',
        op: 'extract',
        reason: 'exactly one image URL is needed',
        hint: 'fastfreeze extract URL --output-dir DIR',
      });
    }
    const passphrase = passphraseOption(parsed);
    const log = createLogger({ command: 'extract', verbosity: verbosityOption(parsed) });
    const generation = generationOption(parsed);
    const outputDirectory = pathOption(parsed, 'output-dir') ?? resolve(lastName(url));
    const result = await extract(
      {
        imageUrl: url,
        outputDirectory,
        ...(passphrase === undefined ? {} : { passphrase }),
        extracted: (name, sizeBytes) => log.debug(`${name}: ${sizeBytes} bytes`),
        allowBadImageVersion: flagOption(parsed, 'allow-bad-image-version'),
        ...(generation === undefined ? {} : { generation }),
      },
      sayWaiting,
    );
    if (flagOption(parsed, 'json')) process.stdout.write(`${JSON.stringify({ ...result, outputDirectory })}\n`);
    else
      process.stderr.write(
        `Generation ${result.generation}: ${result.files} files, ${result.bytes} bytes in ${outputDirectory}\n`,
      );
    return EXIT.ok;
  },
};
