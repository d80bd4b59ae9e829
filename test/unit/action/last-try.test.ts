// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { LastTry } from '../../../src/action/last-try.js';

const fails = async (afterMs: number, reason = 'no space'): Promise<never> => {
  await sleep(afterMs);
  throw new Error(reason);
};

function watched(askJob: () => Promise<unknown> = () => Promise.resolve()): { lastTry: LastTry; given: string[] } {
  const given: string[] = [];
  return { lastTry: new LastTry({ askJob, giveUp: (failure) => given.push(failure) }), given };
}

test('the attempt that is under way is finished, and when it fails there is no other', async () => {
  const { lastTry, given } = watched();
  await expect(lastTry.attempt(() => fails(0, 'the first'))).rejects.toThrow();
  const second = lastTry.attempt(() => fails(1_500, 'the second'));
  second.catch(() => undefined);
  lastTry.begin();
  await sleep(1_300);
  expect(given).toEqual([]);
  await expect(second).rejects.toThrow();
  await sleep(1_300);
  expect(given).toEqual([expect.stringContaining('the second')]);
});

test('before the first attempt nothing is given up; after one that failed, at once', async () => {
  const [none, failed, made] = [watched(), watched(), watched()];
  none.lastTry.begin();
  await expect(failed.lastTry.attempt(() => fails(0))).rejects.toThrow();
  await expect(made.lastTry.attempt(() => fails(0))).rejects.toThrow();
  await made.lastTry.attempt(() => Promise.resolve());
  for (const { lastTry } of [failed, made]) lastTry.begin();
  await sleep(1_300);
  expect([none.given, failed.given.length, made.given]).toEqual([[], 1, []]);
});

test('a job that has ended by itself is left to its end', async () => {
  const { lastTry, given } = watched(() => Promise.reject(new Error('no job')));
  await expect(lastTry.attempt(() => fails(0))).rejects.toThrow();
  lastTry.begin();
  await sleep(1_300);
  expect(given).toEqual([]);
});
