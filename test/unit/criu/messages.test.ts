// SPDX-License-Identifier: Apache-2.0
/* The messages that the documents show are those that the program prints. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { causeInLog } from '../../../src/criu/log-causes.js';

const root = process.cwd();
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

/** Everything that the program can say, as it is written in its sources: what differs is one character. */
const GAP = '\u0000';
const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => read(join('src', name)))
  .join('\n')
  // A message that is written in two pieces is one.
  .replaceAll(/['`] \+\s+['`]/g, '')
  .replaceAll("\\'", "'")
  .replaceAll(/\$\{(?:[^{}`]|`[^`]*`|\{[^}]*\})*\}/g, GAP);

/** Rows of the table below a heading, as cells. */
function rows(document: string, heading: string): string[][] {
  const text = read(document);
  const at = text.indexOf(`\n${heading}\n`);
  if (at < 0) throw new Error(`${document} has no "${heading}"`);
  const section = text.slice(at + heading.length + 2).split(/\n##+ /)[0] ?? '';
  return section
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| message'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

const code = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? '');

/** The parts of a shown message that stand there as they are: names, numbers and what is left out are between them. */
function fixedParts(message: string): string[] {
  return message
    .split(
      /\.\.\.|\/?\b(?:N|M|PATH|NAME)\b|\/(?:dev|proc)\/\S+|\b\d+ \([a-z0-9]+\)|\b\d{2,}\b|(?<=descriptor )\d+|\b(?:network(?= namespace)|user(?= may))/,
    )
    .map((part) => part.replaceAll(/^[\s:(),]+|[\s:(,]+$/g, ''))
    .filter((part) => part.length > 3);
}

/** Where our name of something is not in the text of the message. */
const isSaid = (part: string): boolean => sources.includes(part);

/** Settings of the system, which are said with their value in between; words of other programs. */
const NOT_OURS = /^(kernel|user)\.\w+ is|^read-only$|^no space is left$/;

const SHOWN: readonly (readonly [string, string])[] = [
  ['README.md', '## Root and normal user'],
  ['docs/troubleshooting.md', '## Nothing starts'],
  ['docs/troubleshooting.md', '## A checkpoint is refused'],
];

describe('a message that is shown is one that is said', () => {
  for (const [document, heading] of SHOWN) {
    const cells = rows(document, heading).map((row) => row[document === 'README.md' ? 1 : 0] ?? '');
    const messages = cells.flatMap(code).filter((message) => !NOT_OURS.test(message));
    test(`${document}, ${heading.slice(3)}: there are some`, () => expect(messages.length).toBeGreaterThan(3));
    test.each(messages)(`${document}: %s`, (message) => {
      const parts = fixedParts(message.replace(/^cannot (freeze )?/, ''));
      expect(parts.filter((part) => !isSaid(part))).toEqual([]);
      expect(parts.join(' ').length).toBeGreaterThan(8);
    });
  }

  test('the error of docs/exit-codes.md', () => {
    const [, reason, hint] = /^Error: cannot freeze .*?: (.*)\nTry: (.*)$/m.exec(read('docs/exit-codes.md')) ?? [];
    expect([reason, hint].filter((text) => text === undefined || !isSaid(text))).toEqual([]);
  });
});

describe('CRIU’s words, where a document shows them, lead to the message beside them', () => {
  const pairs = rows('docs/troubleshooting.md', '## A checkpoint is refused').flatMap(([shown = '', words = '']) =>
    code(words)
      .filter((line) => !/sub-task/.test(line))
      .map((line): [string, string] => [line.replaceAll(/\bN\b/g, '7').replaceAll(/\bM\b/g, '9'), shown]),
  );
  test('there are some', () => expect(pairs.length).toBeGreaterThan(10));
  test.each(pairs)('%s', (line, shown) => {
    // A task that cannot be seized is a zombie, unless CRIU gave up over it.
    const wake = line.startsWith('Unable to interrupt')
      ? 'Error (criu/x.c:1): Unable to detach from 7: No such process'
      : '';
    const reason = causeInLog(`(00.1) Error (criu/some.c:1): ${line}\n${wake}\n`)?.reason ?? 'none';
    const words = (text: string): Set<string> => new Set(text.toLowerCase().match(/[a-z_]{3,}/g));
    // Seen before CRIU runs it has a descriptor or a file beside it, so other words around.
    const common = [...words(reason)].filter((word) => words(code(shown).join(' ')).has(word));
    expect(`${reason}: ${common.length}`).toMatch(/: ([3-9]|1\d)$/);
    expect(reason).not.toBe(line);
  });
});
