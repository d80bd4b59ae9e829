// SPDX-License-Identifier: Apache-2.0
import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { shellWords } from '../../../src/daemon/shell-words.js';
import { runCommand } from '../linux/support.js';

jest.setTimeout(30_000);

describe('shellWords', () => {
  test.each<[string, string[] | undefined]>([
    ['', []],
    [' \t\n ', []],
    ['python3 train.py --name "two words"', ['python3', 'train.py', '--name', 'two words']],
    [`a'b c'"d e"f\\ g`, ['ab cd ef g']],
    [`'' ""`, ['', '']],
    [`"\\"\\\\\\$\\\`\\n"`, ['"\\$`\\n']],
    [`'\\'`, ['\\']],
    ['a\\\nb "c\\\nd"', ['ab', 'cd']],
    ['# $HOME > * ; | & `x`', ['#', '$HOME', '>', '*', ';', '|', '&', '`x`']],
    ["it's", undefined],
    ['"open', undefined],
    ['"open\\"', undefined],
    ['end\\', undefined],
  ])('%j', (text, words) => {
    expect(shellWords(text)).toEqual(words);
  });

  test('gives back whatever was quoted', () => {
    const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;
    fc.assert(
      fc.property(fc.array(fc.string({ unit: 'binary' })), (words) => {
        expect(shellWords(words.map(quoted).join(' '))).toEqual(words);
      }),
    );
  });

  test('agrees with a shell on quotes, backslashes and white space', async () => {
    // Without line ends: between words they end a command of a shell's.
    const text = fc.array(fc.constantFrom('a', 'b', ' ', '\t', "'", '"', '\\'), { maxLength: 12 });
    const texts = fc.sample(text, 100).map((characters) => characters.join(''));
    // A subshell each: a quote that is not closed ends it.
    const script = `for t; do (eval "set -- $t" && for w; do printf '%s\\001' "$w"; done) || printf '\\003'; printf '\\002'; done`;
    const { stdout } = await runCommand(['sh', '-c', script, 'sh', ...texts]);
    const answers = stdout.split('\x02').slice(0, -1);
    expect(answers).toHaveLength(texts.length);
    for (const [i, one] of texts.entries()) {
      const answer = answers[i] ?? '';
      const words = shellWords(one);
      // A shell takes a backslash at the very end for itself; here it is refused.
      if (words === undefined) expect([one, answer.endsWith('\x03') || one.endsWith('\\')]).toEqual([one, true]);
      else expect([one, words]).toEqual([one, answer.split('\x01').slice(0, -1)]);
    }
  });
});
