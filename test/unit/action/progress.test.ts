// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import type { EngineEvent } from '../../../src/action/engine-task.js';
import { type Ran, measureFrom, whyNoProgress } from '../../../src/action/progress.js';
import type { JobStatus } from '../../../src/engine/config.js';

const WORKED: Ran = { durationMs: 60_000, cpuMs: 10, outputBytes: 0, hasOtherProcesses: false };
const SAVED = { generation: 1, rawBytes: 1, storedBytes: 1, frozenMs: 1, durableMs: 1 };

function eventsOf(ran: Ran | undefined, last: 'checkpoint' | 'checkpoint-failed' = 'checkpoint'): EngineEvent[] {
  const told = ran === undefined ? {} : { ran };
  return [
    { type: 'ready', atMs: 1, restoredGeneration: 3 },
    { type: 'asked', atMs: 2, source: 'timer', leavesRunning: false, ...told },
    last === 'checkpoint' ? { type: last, atMs: 3, ...SAVED } : { type: last, atMs: 3, message: 'full' },
  ];
}

describe('whether a run has brought its command further', () => {
  test.each([
    ['has computed', {}],
    ['has written', { cpuMs: 0, outputBytes: 1 }],
    ['has started or lost a process, whose CPU time may be lost', { cpuMs: -40, hasOtherProcesses: true }],
  ])('it %s: it has', (_, ran) => {
    expect(whyNoProgress(eventsOf({ ...WORKED, ...ran }))).toBeUndefined();
  });

  test('restored, and frozen again: it has not', () => {
    expect(whyNoProgress(eventsOf({ ...WORKED, durationMs: 140 }))).toBe('the command ran for 0.1 s');
  });

  test('neither CPU time nor output: it has not', () => {
    expect(whyNoProgress(eventsOf({ ...WORKED, cpuMs: 0 }))).toBe(
      'the command has neither computed nor written anything in 60.0 s',
    );
  });

  test('only what is saved counts, and what nobody could measure is taken for progress', () => {
    expect(whyNoProgress(eventsOf(WORKED, 'checkpoint-failed'))).toBe('there is no new checkpoint');
    expect(whyNoProgress(eventsOf(undefined))).toBeUndefined();
    // The last checkpoint that went well was asked for at once; what came after is lost.
    const late = eventsOf(WORKED, 'checkpoint-failed').slice(1);
    expect(whyNoProgress([...eventsOf({ ...WORKED, durationMs: 9 }), ...late])).toBe('the command ran for 0.0 s');
  });
});

describe('what a command has done', () => {
  test('is the difference between what the engine says then and now; nothing of one that has ended', async () => {
    const one = (pid: number): JobStatus['processes'][number] => ({ pid, name: 'sh', residentBytes: 1 });
    const said = [
      { cpuSeconds: 0.5, outputBytes: 10, processes: [one(7)] },
      { cpuSeconds: 2.25, outputBytes: 14, processes: [one(7), one(8)] },
    ];
    const job = {
      status: () => {
        const next = said.shift();
        return next === undefined ? Promise.reject(new Error('it has ended')) : Promise.resolve(next);
      },
    };
    const ran = measureFrom(job);
    expect(await ran()).toMatchObject({ cpuMs: 1750, outputBytes: 4, hasOtherProcesses: true });
    expect(await ran()).toBeUndefined();
  });
});
