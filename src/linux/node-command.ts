// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';

/**
 * The words that start another Node.js like this one. In the self-contained package they begin with the loader of the C
 * library that it brings: the kernel takes that for our program, so `process.execPath` alone would start nothing.
 */
export function nodeCommand(): readonly [string, ...string[]] {
  command ??= commandOf(process.execPath, () => readFileSync('/proc/self/cmdline', 'utf8').split('\0'));
  return command;
}

/** The file of Node.js itself, named as in the kernel's lists of mappings: without links or `..`. */
export function nodeFile(): string {
  return nodeCommand().at(-1) ?? process.execPath;
}

let command: readonly [string, ...string[]] | undefined;

/** Exported for its tests: `words` tells what this process was started with. */
export function commandOf(program: string, words: () => readonly string[]): readonly [string, ...string[]] {
  if (!basename(program).startsWith('ld-linux')) return [program];
  // As bin/fastfreeze starts it: LOADER --library-path FOLDERS NODE.
  const [, option = '', folders = '', node = ''] = words();
  if (option !== '--library-path' || node === '') return [program];
  return [program, option, folders, node];
}
