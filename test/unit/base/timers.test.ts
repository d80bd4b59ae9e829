// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { after, every } from '../../../src/base/timers.js';

const DAY_MS = 86_400_000;

describe('timers', () => {
  beforeEach(() => {
    jest.useFakeTimers();
  });
  afterEach(() => {
    jest.useRealTimers();
  });

  it.each([1, 1000, DAY_MS, 2 ** 31 - 1, 2 ** 31, 30 * DAY_MS, 365 * DAY_MS])(
    'act once after %d ms, not before',
    (delayMs) => {
      const act = jest.fn();
      after(delayMs, act);
      jest.advanceTimersByTime(delayMs - 1);
      expect(act).not.toHaveBeenCalled();
      jest.advanceTimersByTime(1);
      expect(act).toHaveBeenCalledTimes(1);
      jest.advanceTimersByTime(2 * delayMs);
      expect(act).toHaveBeenCalledTimes(1);
    },
  );

  it.each([1000, 30 * DAY_MS])('act every %d ms until they are stopped, also by what they do', (intervalMs) => {
    let times = 0;
    const stop = every(intervalMs, () => {
      times += 1;
      if (times === 4) stop();
    });
    jest.advanceTimersByTime(3 * intervalMs);
    expect(times).toBe(3);
    jest.advanceTimersByTime(5 * intervalMs);
    expect(times).toBe(4);
  });

  it('do not act when they are called off, even after days of waiting', () => {
    const act = jest.fn();
    const stop = after(30 * DAY_MS, act);
    jest.advanceTimersByTime(29 * DAY_MS);
    stop();
    jest.advanceTimersByTime(30 * DAY_MS);
    expect(act).not.toHaveBeenCalled();
    expect(jest.getTimerCount()).toBe(0);
  });
});
