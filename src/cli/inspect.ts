// SPDX-License-Identifier: Apache-2.0
import { inspect } from '../engine/inspect.js';
import type { Command } from './command.js';
import { EXIT } from '../engine/exit-codes.js';
import { imageArguments, printJson } from './image-arguments.js';
import { inspectText } from './inspect-text.js';

const OPTIONS = {
  generation: { type: 'string' },
  'passphrase-file': { type: 'string' },
  json: { type: 'boolean' },
} as const;

export const inspectCommand: Command = {
  name: 'inspect',
  summary: 'Show what an image holds: processes, memory, files, sockets',
  help: `Usage: fastfreeze inspect [OPTIONS] URL

Shows an image: when, where and by what it was written, who holds the job's lease,
the command, the process tree with command lines, what it needs of a CPU, memory by
process and by kind, open files and sockets. Reads the manifest, the index, CRIU's
small files and the few pages of memory that hold the command lines.

Options:
      --generation N         this generation, not the newest
      --passphrase-file FILE the passphrase of encrypted images (or FF_PASSPHRASE)
      --json                 print everything as JSON (docs/json.md)

Exit status:
    0  shown
  170  there is no such image, or it is damaged, or the store cannot be read
    2  the command line is wrong
`,
  async run(args) {
    const { store, which, json, passphrase } = imageArguments(args, 'inspect', OPTIONS);
    const inspected = await inspect(store, which === 'all' ? 'newest' : which, passphrase);
    if (json) printJson(inspected);
    else process.stdout.write(inspectText(inspected));
    return EXIT.ok;
  },
};
