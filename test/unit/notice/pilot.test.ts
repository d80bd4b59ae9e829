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
  jest.useRealTimers();
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

  test('of a limit stops the job the earlier for an upload of its own, as long as nobody else is known to finish it', async () => {
    // 30 s for the copy, 47 s with the safety that is added: less than the limit leaves, or more.
    const upload = { waitingBytes: 0, pace: { fixedMs: 30_000, bytesPerSecond: 2 ** 30 } };
    const own = fly({ upload: () => upload });
    const others = fly({ upload: () => undefined });
    for (const { pilot, job, report } of [own, others]) {
      pilot.ready(job);
      report(soon(40_000));
    }
    await until('the stop', () => own.asked.length > 0);
    await sleep(300);
    expect([own.asked, others.asked]).toEqual([['stop'], []]);
    const inTime = fly({ upload: () => upload });
    inTime.pilot.ready(inTime.job);
    inTime.report(soon(80_000));
    await sleep(300);
    expect(inTime.asked).toEqual([]);
  });

  test('of a machine that stands at the start does not stop the job at once; one that comes later does', async () => {
    const goes = (detail: string): Notice => ({
      what: 'stop',
      deadline: { atMs: Date.now(), kind: 'taken-away' },
      detail,
    });
    const before = fly();
    before.report(goes('before'));
    before.pilot.ready(before.job);
    const first = fly();
    first.pilot.ready(first.job);
    first.report(goes('the first answer'));
    const later = fly();
    later.pilot.ready(later.job);
    later.report(undefined);
    later.report(goes('later'));
    await until('the stop', () => later.asked.length > 0);
    await sleep(200);
    expect([before.asked, first.asked]).toEqual([[], []]);
    // Withdrawn, it counts like any other.
    before.report(undefined);
    before.report(goes('again'));
    await until('the stop', () => before.asked.length > 0);
  });

  test('that is told again in the same words keeps its first deadline, and is logged once', async () => {
    const { pilot, job, asked, report, said } = fly();
    pilot.ready(job);
    report(soon(4_000));
    for (let i = 0; i < 30; i++) {
      report(soon(3_600_000));
      await sleep(10);
    }
    await until('the stop', () => asked.length > 0);
    expect(said().match(/Notice:/gu)).toHaveLength(1);
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

  test('that fails is not tried sooner because of the same kind of notice in other words; another source is heard', async () => {
    jest.useFakeTimers();
    const { pilot, job, asked, failures, report } = fly();
    failures.push(new Error('one'), new Error('two'));
    pilot.ready(job);
    report({ what: 'stop-now', detail: 'go' });
    for (let i = 0; i < 20; i++) {
      report({ what: 'stop-now', detail: `go, ${i}` });
      await jest.advanceTimersByTimeAsync(100);
    }
    expect(asked).toEqual(['stop']);
    pilot.signal('SIGTERM');
    await jest.advanceTimersByTimeAsync(10);
    expect(asked).toEqual(['stop', 'stop']);
  });

  test('that a hint asked for and that failed is tried again, and delays no stop', async () => {
    jest.useFakeTimers();
    const { pilot, job, asked, failures, report, said } = fly();
    failures.push(new Error('full'), new Error('full'), new Error('full'));
    pilot.ready(job);
    report({ what: 'hint', detail: 'perhaps' });
    // A failure is told after half a second, and the save is due two seconds later; the next failure likewise.
    await jest.advanceTimersByTimeAsync(2_400);
    expect(asked).toEqual(['save']);
    await jest.advanceTimersByTimeAsync(800);
    expect(asked).toEqual(['save', 'save']);
    report({ what: 'stop-now', detail: 'go' });
    await jest.advanceTimersByTimeAsync(2_600);
    expect(asked).toEqual(['save', 'save', 'stop', 'stop']);
    expect(said().match(/trying again in \d+ s/gu)).toEqual([2, 4, 2].map((s) => `trying again in ${s} s`));
  });

  test('by timer that failed is tried again after the wait, not after the interval', async () => {
    jest.useFakeTimers();
    const { pilot, job, asked, failures } = fly({ timer: 'always', meanTimeToPreemptionMs: 3_000_000_000 });
    // The interval is some four minutes, at the least cost that is assumed.
    failures.push(new Error('full'));
    pilot.ready(job);
    await jest.advanceTimersByTimeAsync(120_000);
    expect(asked).toEqual([]);
    for (let i = 0; i < 300 && asked.length === 0; i++) await jest.advanceTimersByTimeAsync(1_000);
    await jest.advanceTimersByTimeAsync(3_000);
    expect(asked).toEqual(['save', 'save']);
  });

  test('at an interval that was chosen is left out where it would be under way at the last moment', async () => {
    jest.useFakeTimers();
    const { pilot, job, asked, report } = fly({ everyMs: 10_000 }, { ...FAST, fixedMs: 4_000 });
    pilot.ready(job);
    await jest.advanceTimersByTimeAsync(12_000);
    expect(asked).toEqual(['save']);
    // Some 8 s are needed: the last moment is 2 s before the next save is due to end.
    report(soon(18_000));
    await jest.advanceTimersByTimeAsync(12_000);
    expect(asked).toEqual(['save', 'stop']);
  });

  test('that fails shortly before a deadline is tried again before it', async () => {
    jest.useFakeTimers();
    const { pilot, job, asked, failures, report } = fly();
    failures.push(...Array.from({ length: 3 }, () => new Error('full')));
    pilot.ready(job);
    report(soon(1_600));
    await jest.advanceTimersByTimeAsync(1_500);
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

test('a source that throws, or does not end, hinders neither the job nor its end', async () => {
  const throws: NoticeSource = {
    name: 'broken',
    watch: () => {
      throw new Error('broken');
    },
  };
  const stays: NoticeSource = { name: 'stuck', watch: () => new Promise<void>(() => undefined) };
  const { pilot, said } = fly({ sources: [throws] });
  await until('the warning', () => said().includes('a source of notices has failed'));
  await pilot.stop();
  jest.useFakeTimers();
  const stopping = fly({ sources: [stays] }).pilot.stop();
  await jest.advanceTimersByTimeAsync(5_000);
  await stopping;
  jest.useRealTimers();
  pilots.length = 0;
});
