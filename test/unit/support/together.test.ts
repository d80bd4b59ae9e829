// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import type { FixtureCase } from '../../support/cases.js';
import { Together } from '../../support/together.js';

const one = (name: string): FixtureCase => ({ name, command: () => ['true'] });
const pair = new Together([one('first'), one('second')]);

test('lines of two fixtures are told apart, however they are mixed', () => {
  expect(() => {
    pair.checkLines('1:0 a\n0:0 b\n0:1 done\n1:1 c\n1:2 done\n');
  }).not.toThrow();
});

test.each([
  ['a lost one', '0:0 b\n0:1 done\n1:1 c\n1:2 done\n'],
  ['a repeated one', '0:0 b\n0:0 b\n0:1 done\n1:0 done\n'],
  ['one that is cut', '0:0 b\n0:1 done\n1:0 done\n1:1 d'],
  ['a fixture without an end', '0:0 b\n0:1 done\n1:0 c\n'],
  ['a line of nobody', '0:0 b\nstray\n0:1 done\n1:0 done\n'],
])('%s is an error', (_what, output) => {
  expect(() => {
    pair.checkLines(output);
  }).toThrow();
});

test('one fixture alone has no number before its lines', () => {
  const alone = new Together([one('only')]);
  expect(() => {
    alone.checkLines('0 a\n1 done\n');
  }).not.toThrow();
  expect(() => {
    alone.checkLines('0:0 a\n0:1 done\n');
  }).toThrow(/the lines of only/);
});
