// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Every document that tells a user to type something. */
export const DOCUMENTS: readonly string[] = [
  'README.md',
  'CONTRIBUTING.md',
  ...['docker', ...foldersOf('examples'), ...foldersOf('batch-adapters')]
    .map((folder) => `${folder}/README.md`)
    .filter((path) => existsSync(join(process.cwd(), path))),
  ...readdirSync(join(process.cwd(), 'docs')).map((name) => `docs/${name}`),
];

function foldersOf(folder: string): string[] {
  return readdirSync(join(process.cwd(), folder)).map((name) => `${folder}/${name}`);
}

/** The fenced blocks of a document, as lines. */
export function blocks(document: string): string[][] {
  return fences(document).map(({ lines }) => lines);
}

/** Those in one language, as text. */
export function blocksIn(document: string, language: string): string[] {
  return fences(document)
    .filter((fence) => fence.language === language)
    .map(({ lines }) => lines.join('\n'));
}

/**
 * The commands that a document tells to type: all lines of blocks that say no language, or a shell's. Where some have a prompt, the others are
 * what the commands print. Continued lines are one, comments are left out.
 */
export function commandLines(document: string): string[] {
  return fences(document)
    .filter(({ language }) => ['', 'sh', 'bash'].includes(language))
    .flatMap(({ lines }) => {
      const whole = lines
        .join('\n')
        .replace(/\\\n\s*/g, '')
        .split('\n');
      const typed = whole.filter((line) => line.startsWith('$ '));
      return typed.length > 0 ? typed.map((line) => line.slice(2)) : whole;
    })
    .map((line) => line.replace(/(^|\s+)#.*$/, ''))
    .filter((line) => line !== '');
}

/** Those of one document that begin so: at least one. */
export function typed(document: string, ...starts: readonly string[]): string {
  const found = starts.map((start) => commandLines(document).find((line) => line.startsWith(start)));
  if (found.includes(undefined)) throw new Error(`${document} does not tell to type ${starts.join(', ')}`);
  return found.join('\n');
}

interface Fence {
  readonly language: string;
  readonly lines: string[];
}

function fences(document: string): Fence[] {
  const text = readFileSync(join(process.cwd(), document), 'utf8');
  return [...text.matchAll(/^```([^\n]*)\n(.*?)^```/gms)].map(([, language = '', content = '']) => ({
    language,
    lines: content.split('\n'),
  }));
}
