// SPDX-License-Identifier: Apache-2.0
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { handSummary, handToRunner, wrongPair } from '../../../src/action/command-files.js';
import { makeDirectory } from '../linux/support.js';

describe('what a command has written', () => {
  test.each(['', 'a=b', 'a=b\n\nc=\n', 'a<<END\nx=1\n\nEND\nb=c<<d\n', 'a<<END\r\nx\r\nEND\r\n', 'a=<<\n', 'a<b=c\n'])(
    'is taken as the runner takes it: %j',
    (text) => expect(wrongPair(text)).toBeUndefined(),
  );

  test.each([
    ['word\n', /neither NAME=VALUE/],
    ['=value\n', /neither/],
    ['<<END\nx\nEND\n', /neither/],
    ['a<<END\nx\n', /"a<<END" begins has no end/],
    ['a<<\nx\n\n', /has no end/],
    ['a<<END\nx\nEND\nb<<END\n', /"b<<END"/],
  ])('is refused where the runner would fail the step: %j', (text, problem) => {
    expect(wrongPair(text)).toMatch(problem);
  });

  test('ends each file with a line of its own, and leaves out what would swallow our outputs', () => {
    const directory = makeDirectory();
    const env = Object.fromEntries(
      ['OUTPUT', 'ENV', 'PATH', 'STEP_SUMMARY'].map((name) => [`GITHUB_${name}`, join(directory, name)]),
    );
    for (const path of Object.values(env)) writeFileSync(path, 'before\n');
    const said: string[] = [];
    const words = { GITHUB_OUTPUT: 'a=b', GITHUB_ENV: 'A<<END\nb', GITHUB_PATH: '/c', GITHUB_STEP_SUMMARY: '# d' };
    handToRunner(words, env, (message) => said.push(message));
    handSummary(words, env);
    expect(
      ['OUTPUT', 'ENV', 'PATH', 'STEP_SUMMARY'].map((name) => readFileSync(join(directory, name), 'utf8')),
    ).toEqual(['before\na=b\n', 'before\n', 'before\n/c\n', 'before\n# d\n']);
    expect(said).toEqual([expect.stringMatching(/^What the command wrote to GITHUB_ENV is left out: /)]);
  });
});
