// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  countOption,
  cpuBudgetOption,
  durationOption,
  flagOption,
  parseDuration,
  parseOptions,
  textOption,
  verbosityOption,
} from '../../../src/cli/arguments.js';

/** As `run` has them. */
const OPTIONS = {
  'image-url': { type: 'string', short: 'i' },
  'no-restore': { type: 'boolean' },
  'checkpoint-every': { type: 'string' },
  keep: { type: 'string' },
  'cpu-budget': { type: 'string' },
  container: { type: 'string', short: 'n' },
  output: { type: 'string', short: 'o' },
  error: { type: 'string', short: 'e' },
  verbose: { type: 'boolean', short: 'v', multiple: true },
} as const;

const split = (line: string) => parseOptions(line.split(' '), OPTIONS, true);
const given = (...words: string[]) => parseOptions(words, OPTIONS, false);

describe('the words of run', () => {
  test.each([
    ['cmd', {}, ['cmd']],
    ['cmd -x', {}, ['cmd', '-x']],
    ['-v --image-url=x -- cmd --flag', { 'image-url': 'x' }, ['cmd', '--flag']],
    ['-v --image-url x cmd --image-url y', { 'image-url': 'x' }, ['cmd', '--image-url', 'y']],
    ['-i x cmd -i y', { 'image-url': 'x' }, ['cmd', '-i', 'y']],
    ['-vi x cmd', { 'image-url': 'x' }, ['cmd']],
    ['-ix cmd', { 'image-url': 'x' }, ['cmd']],
    ['-n x -o a -e b cmd', { container: 'x', output: 'a', error: 'b' }, ['cmd']],
    // What is attached may end with any letter, that of another option included.
    ['-njoe cmd arg', { container: 'joe' }, ['cmd', 'arg']],
    ['-nfoo cmd arg', { container: 'foo' }, ['cmd', 'arg']],
    ['-orun.i cmd', { output: 'run.i' }, ['cmd']],
    ['-- -v', {}, ['-v']],
    ['-- cmd -- x', {}, ['cmd', '--', 'x']],
    ['cmd -- x', {}, ['cmd', '--', 'x']],
    ['-', {}, ['-']],
    ['--no-restore', {}, []],
    ['--no-restore --', {}, []],
  ])('%s', (line, values, rest) => {
    const parsed = split(line);
    expect(parsed.rest).toEqual(rest);
    for (const name of ['image-url', 'container', 'output', 'error']) {
      expect(textOption(parsed, name)).toBe((values as Record<string, string>)[name]);
    }
  });

  test('belong to the command from the first that is no option, whatever they are', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), fc.boolean(), (words, marked) => {
        const parsed = parseOptions(['-v', ...(marked ? ['--'] : ['cmd']), ...words], OPTIONS, true);
        expect(parsed.rest).toEqual(marked ? words : ['cmd', ...words]);
      }),
    );
  });

  test.each([
    ['--nonsense cmd', '--nonsense'],
    ['-x cmd', '-x'],
    ['--image-url', '--image-url'],
    ['--no-restore=yes cmd', '--no-restore'],
  ])('%s is refused and named', (line, named) => {
    expect(() => split(line)).toThrow(
      expect.objectContaining({
        code: 'usage',
        message: expect.stringContaining(named) as unknown,
        hint: 'see --help',
      }),
    );
  });
});

describe('values', () => {
  test.each([
    ['90', 90_000],
    ['0.5', 500],
    ['90s', 90_000],
    ['5m', 300_000],
    ['1h30m', 5_400_000],
    ['1.5h', 5_400_000],
    ['500ms', 500],
    ['1d2h3m4s5ms', 93_784_005],
  ])('%s is a duration', (text, durationMs) => {
    expect(parseDuration(text)).toBe(durationMs);
    expect(durationOption(given('--checkpoint-every', text), 'checkpoint-every')).toBe(durationMs);
  });

  test.each(['', 'x', '5x', 'm5', '5 m', '-5', '1e3', '5m3', '1h-1m', '.5s', '0x10', 'Infinity', '0', '0s', '0.0001s'])(
    '%j is none, and the option and the value are named',
    (text) => {
      expect(() => durationOption(given(`--checkpoint-every=${text}`), 'checkpoint-every')).toThrow(
        expect.objectContaining({
          code: 'usage',
          subject: `--checkpoint-every ${JSON.stringify(text)}`,
          reason: expect.stringContaining('90s, 5m or 1h30m') as unknown,
        }),
      );
    },
  );

  test('durations survive being written out', () => {
    fc.assert(
      fc.property(fc.nat({ max: 99 }), fc.nat({ max: 59 }), fc.nat({ max: 59 }), (h, m, s) => {
        expect(parseDuration(`${h}h${m}m${s}s`)).toBe(((h * 60 + m) * 60 + s) * 1000);
      }),
    );
  });

  test.each(['0', '-1', '1.5', 'two', '', '65536', ' 3', '0x2', '1e2'])('%j is no number to keep', (text) => {
    expect(() => countOption(given(`--keep=${text}`), 'keep', 2, 1)).toThrow(
      expect.objectContaining({ code: 'usage', subject: `--keep ${JSON.stringify(text)}` }),
    );
  });

  test('have defaults', () => {
    expect(countOption(given(), 'keep', 2, 1)).toBe(2);
    expect(countOption(given('--keep', '7'), 'keep', 2, 1)).toBe(7);
    expect(durationOption(given(), 'checkpoint-every')).toBeUndefined();
    expect(flagOption(given(), 'no-restore')).toBe(false);
    expect([given(), given('-v'), given('-vv'), given('-v', '-vv')].map(verbosityOption)).toEqual([0, 1, 2, 2]);
  });

  test('of the CPU budget are three', () => {
    for (const one of ['low', 'medium', 'high']) expect(cpuBudgetOption(given('--cpu-budget', one))).toBe(one);
    expect(cpuBudgetOption(given())).toBeUndefined();
    expect(() => cpuBudgetOption(given('--cpu-budget', 'huge'))).toThrow(
      /--cpu-budget "huge": expected low, medium or high/,
    );
  });
});
