// SPDX-License-Identifier: Apache-2.0
// What the documents tell to type is run by a test, or test/commands.json says why it cannot be. That it comes out as shown is the tests' matter.
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { DOCUMENTS, blocksIn, commandLines } from '../support/document.js';

/** By document and command: `integration/SUITE: TITLE` of the test that runs it, or `not run: WHY`. */
const LIST = JSON.parse(readFileSync('test/commands.json', 'utf8')) as Readonly<Record<string, Record<string, string>>>;

describe('what the documents tell to type', () => {
  test('there are documents to look at', () => {
    expect(DOCUMENTS).toEqual(
      expect.arrayContaining(['README.md', 'docker/README.md', 'examples/kubernetes/README.md']),
    );
    expect(DOCUMENTS.length).toBeGreaterThan(20);
  });

  test.each(DOCUMENTS)('%s: every command is in the list, and the list has no others', (document) => {
    expect(Object.keys(LIST[document] ?? {}).sort()).toEqual([...new Set(commandLines(document))].sort());
  });

  test('the list has documents that there are', () => {
    expect(Object.keys(LIST).filter((document) => !DOCUMENTS.includes(document))).toEqual([]);
  });

  const entries = Object.values(LIST).flatMap((commands) => Object.values(commands));
  test.each([...new Set(entries)])('%s', (entry) => {
    const [, where = '', what = ''] = /^(\S+|not run): (.+)$/.exec(entry) ?? [];
    if (where === 'not run') {
      expect(what.length).toBeGreaterThan(10);
      return;
    }
    const path = `test/${where}.test.ts`;
    expect([path, existsSync(path)]).toEqual([path, true]);
    // Titles of tests, and of the stories of Slurm.
    const text = readFileSync(path, 'utf8');
    expect(["('", "  '"].some((before) => text.includes(`${before}${what}'`))).toBe(true);
  });

  test('YAML in them can be parsed, and holds what it is about', () => {
    const found = DOCUMENTS.flatMap((document) => blocksIn(document, 'yaml').map((text) => [document, text] as const));
    expect(new Set(found.map(([document]) => document))).toEqual(
      new Set(['README.md', 'docs/action.md', 'docs/batch.md']),
    );
    for (const [, text] of found) expect(parse(text)).toEqual(expect.any(Object));
  });
});
