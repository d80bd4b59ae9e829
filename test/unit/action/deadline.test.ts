// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { deadlineOf, jobTime, startOf, startTicks } from '../../../src/action/deadline.js';

const MINUTE = 60_000;
const comm = readFileSync('/proc/self/stat', 'latin1').replace(/^\d+ \((.*)\) .*$/s, '$1');

describe('when the image must be safe', () => {
  test('keeps five minutes for what follows, and of a short job a twelfth', () => {
    const at = (timeoutMs: number): number =>
      deadlineOf({ timeoutMs, checkpointBeforeMs: 'auto' }, { startedAtMs: 0, by: 'step' }).atMs;
    expect(at(360 * MINUTE)).toBe(355 * MINUTE);
    expect(at(12 * MINUTE)).toBe(11 * MINUTE);
  });

  test('a duration is when to freeze, whatever that takes', () => {
    const inputs = { timeoutMs: 60 * MINUTE, checkpointBeforeMs: 20 * MINUTE };
    expect(deadlineOf(inputs, { startedAtMs: 5, by: 'input' })).toEqual({ atMs: 40 * MINUTE + 5, of: 'start' });
  });

  test('counts from what the user says, else from the runner, else from the step', () => {
    expect(jobTime({ jobStartedAtMs: 7 }, 9)).toEqual({ startedAtMs: 7, by: 'input' });
    // No runner is our parent.
    expect(jobTime({ jobStartedAtMs: undefined }, 9)).toEqual({ startedAtMs: 9, by: 'step' });
  });

  test('the start of a process is known to a second, of one of another name it is not', () => {
    const startedMs = Date.now() - process.uptime() * 1000;
    expect(Math.abs((startOf(process.pid, comm) ?? 0) - startedMs)).toBeLessThan(2_000);
    expect(startOf(process.pid, 'Runner.Worker')).toBeUndefined();
    expect(startOf(2 ** 30, comm)).toBeUndefined();
    expect(startTicks(process.pid)).toBeGreaterThan(0);
    expect(startTicks(2 ** 30)).toBeUndefined();
  });
});
