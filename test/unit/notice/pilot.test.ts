// SPDX-License-Identifier: Apache-2.0
/* The pilot: what it asks of a job when notices come, are taken back, or a checkpoint fails. Freezes are in test/integration/batch.test.ts. */
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { FastFreezeError } from '../../../src/base/errors.js';
import { createLogger } from '../../../src/base/log.js';
import type { CheckpointResult, JobStatus } from '../../../src/engine/config.js';
import { ASSUMED_PACE, type Pace } from '../../../src/engine/pace.js';
import type { Pilot, RunningJob } from '../../../src/engine/pilot.js';
import type { Notice, NoticeSource, SourceTools } from '../../../src/notice/notice.js';
import { type PilotOptions, createPilot } from '../../../src/notice/pilot.js';
import { sleep, until } from '../../support/until.js';

jest.setTimeout(60_000);

const FAST: Pace = { ...ASSUMED_PACE, fixedMs: 1, pauseMs: 1, samples: 1 };
const soon = (ms: number): Notice => ({
  what: 'stop',
  deadline: { atMs: Date.now() + ms, kind: 'limit' },
  detail: 'the end',
});
const pilots: Pilot[] = [];

afterEach(async () => {
  for (const pilot of pilots.splice(0)) await pilot.stop();
});

/** A pilot, a source that says what the test says, and a job that writes down what it is asked. */
function fly(options: Partial<PilotOptions> = {}, pace: Pace = FAST) {
  let tools: SourceTools | undefined;
  const source: NoticeSource = {
    name: 'test',
    windowMs: 20_000,
    watch: (given) => {
      tools = given;
      return Promise.resolve();
    },
  };
  const said: string[] = [];
  const asked: ('stop' | 'save')[] = [];
  const failures: Error[] = [];
  const gates: Promise<void>[] = [];
  const job: RunningJob = {
    checkpoint: async ({ leaveRunning }) => {
      asked.push(leaveRunning ? 'save' : 'stop');
      await gates.shift();
      const failure = failures.shift();
      if (failure !== undefined) throw failure;
      return {} as CheckpointResult;
    },
    status: () => Promise.resolve({ residentBytes: 2 ** 20, pace } as JobStatus),
  };
  const pilot = createPilot({
    sources: [source],
    stopSignals: ['SIGTERM'],
    timer: 'never',
    log: createLogger({ command: 'test', verbosity: 0, write: (line) => said.push(line) }),
    ...options,
  });
  pilots.push(pilot);
  const report = (notice: Notice | undefined): void => tools?.report(notice);
  return { pilot, job, asked, failures, gates, report, said: () => said.join('') };
}

describe('a notice', () => {
  test('that came before the application was ready is acted on when it is', async () => {
    const { pilot, job, asked, report } = fly();
    report({ what: 'stop-now', detail: 'now' });
    await sleep(50);
    expect(asked).toEqual([]);
    pilot.ready(job);
    await until('the stop', () => asked.length > 0);
    expect(asked).toEqual(['stop']);
  });

  test('that is taken back in time stops nothing; the next does', async () => {
    const { pilot, job, asked, report, said } = fly();
    pilot.ready(job);
    report(soon(3_600_000));
    report(undefined);
    await sleep(100);
    expect(asked).toEqual([]);
    // Less than the margin is left.
    report(soon(1_000));
    await until('the stop', () => asked.length > 0);
    expect(said()).toMatch(/Notice: the end\n[^]*Withdrawn: the end\n[^]*Notice: the end\n/);
  });

  test('with a deadline waits for the last moment', async () => {
    const { pilot, job, asked, report } = fly();
    pilot.ready(job);
    const deadlineMs = Date.now() + 4_000;
    report({ what: 'stop', deadline: { atMs: deadlineMs, kind: 'limit' }, detail: 'later' });
    await sleep(100);
    expect(asked).toEqual([]);
    await until('the stop', () => asked.length > 0);
  });

  test('that comes during a save is acted on after it; a hint saves once', async () => {
    const { pilot, job, asked, gates, report } = fly();
    let open: () => void = () => undefined;
    gates.push(new Promise((resolve) => (open = resolve)));
    pilot.ready(job);
    report({ what: 'hint', detail: 'perhaps' });
    await until('the save', () => asked.length > 0);
    expect(pilot.signal('SIGTERM')).toBe(true);
    expect(pilot.signal('SIGUSR1')).toBe(false);
    await sleep(50);
    expect(asked).toEqual(['save']);
    open();
    await until('the stop', () => asked.length > 1);
    expect(asked).toEqual(['save', 'stop']);
  });
});

describe('a checkpoint', () => {
  test('that fails is tried again, and said', async () => {
    const { pilot, job, asked, failures, said } = fly();
    failures.push(new FastFreezeError({ code: 'store', op: 'write', reason: 'the disk is full', hint: 'make room' }));
    pilot.ready(job);
    pilot.signal('SIGTERM');
    await until('another try', () => asked.length > 1);
    expect(said()).toMatch(
      /cannot write: the disk is full\. The application runs on; trying again in 2 s\n.*Try: make room/,
    );
    await sleep(100);
    expect(asked).toEqual(['stop', 'stop']);
  });

  test('by timer comes where a notice would be too late for the size, and only there', async () => {
    const slow: Pace = { ...FAST, fixedMs: 30_000 };
    const large = fly({ timer: 'when-needed' }, slow);
    large.pilot.ready(large.job);
    await until('the warning', () => large.said().includes('falling back'));
    expect(large.said()).toMatch(/a notice leaves 20 s, and a checkpoint of this application needs 47 s/);
    const small = fly({ timer: 'when-needed' });
    small.pilot.ready(small.job);
    const always = fly({ timer: 'always', meanTimeToPreemptionMs: 1_000 });
    always.pilot.ready(always.job);
    await until('two saves', () => always.asked.length > 1);
    expect(always.asked.slice(0, 2)).toEqual(['save', 'save']);
    expect([small.asked, small.said()]).toEqual([[], '']);
  });
});
