// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import type { EngineEvent } from '../../../src/action/engine-task.js';
import { outcomeOf, outputs } from '../../../src/action/outcome.js';
import { summaryText } from '../../../src/action/summary.js';

const SAVED = { rawBytes: 4 * 1_048_576, storedBytes: 1_048_576, frozenMs: 50, durableMs: 1_000 };
const EVENTS: EngineEvent[] = [
  { type: 'ready', atMs: 2_000, restoredGeneration: 3 },
  { type: 'asked', atMs: 5_000, source: 'timer', leavesRunning: true },
  { type: 'checkpoint-failed', atMs: 5_500, message: 'no space | is left' },
  { type: 'asked', atMs: 8_000, source: 'the time limit', leavesRunning: false },
  { type: 'checkpoint', atMs: 9_000, generation: 4, ...SAVED },
];
const story = { jobId: 'j', imageUrl: 'file:/i', startedAtMs: 1_000, endedAtMs: 9_500, why: 'Frozen.', next: 'Again.' };

describe('the job summary', () => {
  test('has a timeline and a row for each checkpoint', () => {
    const lines = summaryText({ ...story, events: EVENTS }).split('\n');
    expect(lines).toContain('**Frozen.** Again.');
    expect(lines).toContain('  restore of 3 :1000, 2000');
    expect(lines).toContain('  command :active, 2000, 8000');
    expect(lines).toContain('  checkpoint 4 :crit, 8000, 9000');
    expect(lines).toContain('| failed | timer: no space   is left | | | | | | |');
    expect(lines).toContain('| 4 | the time limit | 4.0 MiB | 1.0 MiB | 4.0 | 0.05 s | 1.00 s | 4.0 MiB/s |');
  });

  test('of a step that never began says so', () => {
    const text = summaryText({ ...story, events: [] });
    expect(text).toContain('  set-up :1000, 9500');
    expect(text).toContain('No checkpoint was made.');
  });
});

describe('the outputs', () => {
  test('of a job that was frozen', () => {
    const outcome = outcomeOf(EVENTS, { exitCode: 137, how: 'frozen' });
    expect(outputs(outcome, 'file:/i', 'https://next')).toEqual({
      status: 'checkpointed',
      completed: 'false',
      ran: 'true',
      restored: 'true',
      'exit-code': '',
      'image-url': 'file:/i',
      generation: '4',
      'checkpoint-bytes': '1048576',
      'frozen-ms': '50',
      'next-run-url': 'https://next',
    });
  });

  test('of one that an earlier run has ended', () => {
    const outcome = outcomeOf([], { exitCode: 0, how: 'ended' });
    expect(outputs(outcome, 'u', '')).toMatchObject({
      status: 'completed',
      completed: 'true',
      ran: 'false',
      'exit-code': '0',
      generation: '',
    });
  });

  test('of a command that failed, and of a failure of ours', () => {
    expect(outcomeOf([], { exitCode: 3, how: 'ended' })).toMatchObject({
      status: 'failed',
      completed: true,
      exitCode: 3,
    });
    expect(outcomeOf([], { exitCode: 171, how: 'failed' })).toMatchObject({
      status: 'failed',
      completed: false,
      exitCode: undefined,
    });
  });
});
