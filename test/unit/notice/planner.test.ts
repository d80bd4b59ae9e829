// SPDX-License-Identifier: Apache-2.0
/* The planner over random sizes, rates and windows: what docs/planner.md promises of it. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  ASSUMED_PACE,
  type CopyPace,
  type Pace,
  type PaceSample,
  parsePace,
  refineCopyPace,
  refinePace,
} from '../../../src/engine/pace.js';
import { MIN_RUN_MS, decide, retryMs } from '../../../src/notice/decide.js';
import type { Notice } from '../../../src/notice/notice.js';
import {
  SAFETY_MARGIN_MS,
  TAKEN_AWAY_SLACK_MS,
  checkpointIntervalMs,
  estimate,
  fitsWindow,
  lastStartMs,
  neededMs,
} from '../../../src/notice/planner.js';

const GIB = 2 ** 30;
const bytes = fc.integer({ min: 0, max: 512 * GIB });

/** A checkpoint as it may go: durable after it was captured, which is after it was frozen. */
const samples = fc
  .record({
    residentBytes: bytes,
    rawBytes: fc.oneof(fc.integer({ min: 1, max: 2 ** 24 }), fc.integer({ min: 1, max: 512 * GIB })),
    ratio: fc.double({ min: 0.001, max: 1.1, noNaN: true }),
    preparingMs: fc.integer({ min: 0, max: 60_000 }),
    capturingMs: fc.integer({ min: 1, max: 3_600_000 }),
    restMs: fc.integer({ min: 0, max: 3_600_000 }),
  })
  .map(({ ratio, restMs, ...sample }): PaceSample => ({
    ...sample,
    storedBytes: Math.ceil(sample.rawBytes * ratio),
    durableMs: sample.preparingMs + sample.capturingMs + restMs,
  }));

const paces = fc
  .array(samples, { maxLength: 6 })
  .map((all) => all.reduce<Pace>((pace, sample) => refinePace(pace, sample), ASSUMED_PACE));
const copies = fc.record({
  copiedBytes: fc.oneof(fc.integer({ min: 0, max: 2 ** 24 }), fc.integer({ min: 0, max: 512 * GIB })),
  durationMs: fc.integer({ min: 1, max: 3_600_000 }),
});
const copyPaces = fc
  .array(copies, { maxLength: 6 })
  .map((all) =>
    all.reduce<CopyPace | undefined>((pace, one) => refineCopyPace(pace, one.copiedBytes, one.durationMs), undefined),
  );
const estimates = fc.tuple(bytes, paces).map(([resident, pace]) => estimate(resident, pace));
const deadlines = fc.record({
  atMs: fc.integer({ min: 0, max: 2 ** 41 }),
  kind: fc.constantFrom('limit' as const, 'taken-away' as const),
});

describe('the pace', () => {
  test('never promises less than the last checkpoint took', () => {
    fc.assert(
      fc.property(paces, samples, (before, sample) => {
        const expected = estimate(sample.residentBytes, refinePace(before, sample));
        // Rounding of a rate, upwards in time.
        const slack = 1 + sample.durableMs * 1e-3;
        expect(expected.durableMs + slack).toBeGreaterThanOrEqual(sample.durableMs);
        expect(expected.frozenMs + slack).toBeGreaterThanOrEqual(sample.capturingMs);
        expect(expected.imageBytes).toBeGreaterThanOrEqual(sample.rawBytes);
      }),
    );
  });

  test('forgets one bad checkpoint when good ones follow', () => {
    fc.assert(
      fc.property(samples, samples, (bad, good) => {
        fc.pre(bad.rawBytes >= 2 ** 24 && good.rawBytes >= 2 ** 24);
        const alone = estimate(good.residentBytes, refinePace(ASSUMED_PACE, good));
        let pace = refinePace(ASSUMED_PACE, bad);
        for (let i = 0; i < 60; i++) pace = refinePace(pace, good);
        expect(estimate(good.residentBytes, pace).durableMs).toBeLessThanOrEqual(alone.durableMs * 1.1 + 10);
      }),
    );
  });

  test('comes out of a manifest as it went in, and is left out where it is damaged', () => {
    fc.assert(fc.property(paces, (pace) => expect(parsePace(JSON.parse(JSON.stringify(pace)))).toEqual(pace)));
    fc.assert(
      fc.property(paces, fc.constantFrom(...Object.keys(ASSUMED_PACE)), fc.anything(), (pace, name, value) => {
        const parsed = parsePace({ ...pace, [name]: value });
        if (parsed === undefined) return;
        for (const one of Object.values(parsed)) expect(Number.isFinite(one) && one >= 0).toBe(true);
        expect(estimate(GIB, parsed).durableMs).toBeLessThan(Infinity);
      }),
    );
    for (const wrong of [undefined, null, 7, {}, { ...ASSUMED_PACE, captureBytesPerSecond: 0 }]) {
      expect(parsePace(wrong)).toBeUndefined();
    }
  });
});

describe('the estimate', () => {
  test('grows with the memory, and is never shorter durable than frozen', () => {
    fc.assert(
      fc.property(paces, bytes, bytes, (pace, one, other) => {
        const [small, large] = [estimate(Math.min(one, other), pace), estimate(Math.max(one, other), pace)];
        expect(small.durableMs).toBeLessThanOrEqual(large.durableMs);
        expect(small.frozenMs).toBeLessThanOrEqual(large.frozenMs);
        expect(small.frozenMs).toBeLessThanOrEqual(small.durableMs);
      }),
    );
  });

  test('with an upload of our own it is as much longer, at least, as the last copy of that size took, and more with what waits', () => {
    fc.assert(
      fc.property(paces, copyPaces, copies, bytes, (pace, before, copy, waitingBytes) => {
        const copying = refineCopyPace(before, copy.copiedBytes, copy.durationMs);
        const sized = { ...pace, storedRatio: 1, besideBytes: 0 };
        const without = estimate(copy.copiedBytes, sized);
        const extraMs = (waiting: number): number =>
          estimate(copy.copiedBytes, sized, { waitingBytes: waiting, pace: copying }).durableMs - without.durableMs;
        expect(extraMs(0) + 1 + copy.durationMs * 1e-3).toBeGreaterThanOrEqual(copy.durationMs);
        expect(extraMs(waitingBytes)).toBeGreaterThanOrEqual(extraMs(0));
        // The application stands still no longer for it.
        const { frozenMs } = estimate(copy.copiedBytes, sized, { waitingBytes, pace: copying });
        expect(frozenMs).toBe(without.frozenMs);
        // What this machine has not measured the images tell.
        const told = { waitingBytes, pace: undefined };
        expect(estimate(copy.copiedBytes, { ...sized, copying }, told)).toEqual(
          estimate(copy.copiedBytes, sized, { waitingBytes, pace: copying }),
        );
        expect(parsePace(JSON.parse(JSON.stringify({ ...sized, copying })))).toEqual({ ...sized, copying });
      }),
    );
    // A checkpoint does not forget how fast the copies were; what is damaged is left out alone.
    const sample = {
      residentBytes: GIB,
      rawBytes: GIB,
      storedBytes: GIB,
      preparingMs: 1,
      capturingMs: 1,
      durableMs: 2,
    };
    const copying = { fixedMs: 7, bytesPerSecond: 8 };
    expect(refinePace({ ...ASSUMED_PACE, copying }, sample).copying).toEqual(copying);
    for (const wrong of [{ ...copying, bytesPerSecond: 0 }, { fixedMs: 7 }, 'x', null]) {
      expect(parsePace({ ...ASSUMED_PACE, copying: wrong })).toEqual(ASSUMED_PACE);
    }
  });

  test('the last moment leaves half as much again and the margin; earlier still where the machine is taken away', () => {
    fc.assert(
      fc.property(deadlines, estimates, (deadline, expected) => {
        const leftMs = deadline.atMs - lastStartMs(deadline, expected);
        expect(leftMs).toBeGreaterThanOrEqual(expected.durableMs * 1.5 + SAFETY_MARGIN_MS);
        const slackMs = deadline.kind === 'limit' ? 0 : TAKEN_AWAY_SLACK_MS;
        expect(leftMs).toBeLessThanOrEqual(expected.durableMs * 1.5 + SAFETY_MARGIN_MS + slackMs + 1);
        // A window fits exactly when a checkpoint that starts as it opens is started in time.
        const windowMs = neededMs(expected);
        expect([fitsWindow(windowMs, expected), fitsWindow(windowMs - 1, expected)]).toEqual([true, false]);
      }),
    );
  });

  test('of the assumptions: 4 GiB do not fit into 30 s, 64 MiB do', () => {
    expect(fitsWindow(30_000, estimate(4 * GIB))).toBe(false);
    expect(fitsWindow(30_000, estimate(64 * 2 ** 20))).toBe(true);
  });
});

describe('the interval', () => {
  const mttps = fc.integer({ min: 1000, max: 30 * 86_400_000 });

  test('is the one that loses least, against a search', () => {
    /** Expected time per unit of work for exponential failures and an instant restart (Daly's own model). */
    const loss = (intervalMs: number, costMs: number, mttpMs: number): number =>
      (mttpMs * Math.expm1((intervalMs + costMs) / mttpMs)) / intervalMs;
    fc.assert(
      fc.property(mttps, fc.double({ min: 0.0001, max: 0.5, noNaN: true }), (mttpMs, share) => {
        const frozenMs = Math.ceil(mttpMs * share);
        fc.pre(frozenMs >= 10 && mttpMs >= 60_000);
        const chosen = checkpointIntervalMs({ imageBytes: 0, frozenMs, durableMs: frozenMs }, mttpMs);
        fc.pre(chosen > frozenMs && chosen > 1000);
        const best = Math.min(
          ...Array.from({ length: 400 }, (_, i) => loss(mttpMs * 0.001 * 1.02 ** i, frozenMs, mttpMs)),
        );
        expect(loss(chosen, frozenMs, mttpMs)).toBeLessThanOrEqual(best * 1.02);
      }),
    );
  });

  test('is longer for dearer checkpoints and for machines that last longer, and never shorter than it takes', () => {
    fc.assert(
      fc.property(estimates, estimates, mttps, mttps, (one, other, mttp, otherMttp) => {
        const interval = checkpointIntervalMs(one, mttp);
        expect(interval).toBeGreaterThanOrEqual(one.durableMs);
        const longer = Math.max(mttp, otherMttp);
        if (2 * one.frozenMs < 0.2 * mttp) {
          expect(checkpointIntervalMs(one, longer)).toBeGreaterThanOrEqual(interval);
          if (other.frozenMs >= one.frozenMs && other.durableMs >= one.durableMs && 2 * other.frozenMs < 0.2 * mttp) {
            expect(checkpointIntervalMs(other, mttp)).toBeGreaterThanOrEqual(interval);
          }
        }
      }),
    );
  });
});

describe('the decision', () => {
  const notices = fc.array(
    fc.oneof(
      deadlines.map((deadline): Notice => ({ what: 'stop', deadline, detail: 'd' })),
      fc.constant<Notice>({ what: 'stop-now', detail: 'n' }),
      fc.constant<Notice>({ what: 'hint', detail: 'h' }),
    ),
    { maxLength: 4 },
  );
  const situations = fc.record({
    nowMs: fc.integer({ min: 0, max: 2 ** 41 }),
    notices,
    standing: fc.constant<readonly Notice[]>([]),
    expected: estimates,
    readyMs: fc.constant(0),
    savesFromMs: fc.integer({ min: 0, max: 2 ** 41 }),
    lastSaveMs: fc.integer({ min: 0, max: 2 ** 41 }),
    mttpMs: fc.option(fc.integer({ min: 1000, max: 10 ** 9 }), { nil: undefined }),
  });

  test('stops exactly when some deadline leaves no more time', () => {
    fc.assert(
      fc.property(situations, (situation) => {
        const { nowMs, expected } = situation;
        const due = situation.notices.some(
          (one) => one.what === 'stop-now' || (one.what === 'stop' && lastStartMs(one.deadline, expected) <= nowMs),
        );
        expect(decide(situation).act === 'stop').toBe(due);
      }),
    );
  });

  test('never saves when that would still be under way at the last moment to stop', () => {
    fc.assert(
      fc.property(situations, deadlines, fc.double({ min: 0, max: 3, noNaN: true }), (situation, deadline, part) => {
        // Around the moment that counts, where random times hardly ever are.
        const { expected } = situation;
        const nowMs = Math.floor(lastStartMs(deadline, expected) - part * expected.durableMs);
        const near: Notice[] = [{ what: 'stop', deadline, detail: 'd' }, ...situation.notices];
        const decision = decide({ ...situation, nowMs, notices: near, lastSaveMs: 0 });
        if (decision.act !== 'save') return;
        for (const one of near) {
          if (one.what === 'stop') {
            expect(nowMs + expected.durableMs).toBeLessThanOrEqual(lastStartMs(one.deadline, expected));
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  test('waiting ends in the future, and at its end something is to be done', () => {
    fc.assert(
      fc.property(situations, (situation) => {
        const decision = decide(situation);
        if (decision.act !== 'wait' || decision.untilMs === undefined) return;
        expect(decision.untilMs).toBeGreaterThan(situation.nowMs);
        const then = decide({ ...situation, nowMs: decision.untilMs });
        // A save that has no room before a stop is left out, and the stop waited for.
        if (then.act === 'wait') expect(then.untilMs ?? 0).toBeGreaterThan(decision.untilMs);
      }),
    );
  });

  test('a hint saves at once; without notices and timer nothing is due', () => {
    const quiet = {
      nowMs: 5,
      notices: [],
      standing: [],
      expected: estimate(0),
      readyMs: 0,
      lastSaveMs: 0,
      savesFromMs: 0,
      mttpMs: undefined,
    };
    expect(decide(quiet)).toEqual({ act: 'wait', untilMs: undefined });
    expect(decide({ ...quiet, notices: [{ what: 'hint', detail: 'h' }] })).toEqual({ act: 'save', reason: 'h' });
    const timed = decide({ ...quiet, mttpMs: 3_600_000 });
    expect(timed.act).toBe('wait');
    // After a save that failed, neither comes before its time.
    const hint: Notice = { what: 'hint', detail: 'h' };
    const failed = { ...quiet, savesFromMs: 2_000 };
    expect(decide({ ...failed, notices: [hint] })).toEqual({ act: 'wait', untilMs: 2_000 });
    expect(decide({ ...failed, mttpMs: 1_000, lastSaveMs: -1e9 })).toEqual({ act: 'wait', untilMs: 2_000 });
  });

  describe('on a stop that stood there when the application began to run', () => {
    const held = fc.record({
      readyMs: fc.integer({ min: 0, max: 2 ** 41 }),
      ranMs: fc.integer({ min: 0, max: 2 * MIN_RUN_MS }),
      leftMs: fc.integer({ min: -3_600_000, max: 3_600_000 }),
      kind: fc.constantFrom('limit' as const, 'taken-away' as const),
      situation: situations,
    });

    test('lets the job run first, unless the last moment to start or a limit comes before', () => {
      fc.assert(
        fc.property(held, ({ readyMs, ranMs, leftMs, kind, situation }) => {
          const { expected } = situation;
          const deadline = { atMs: readyMs + leftMs, kind };
          const standing: Notice[] = [{ what: 'stop', deadline, detail: 'd' }];
          const nowMs = readyMs + ranMs;
          const decision = decide({ ...situation, notices: [], standing, readyMs, nowMs });
          if (ranMs >= MIN_RUN_MS && lastStartMs(deadline, expected) <= nowMs) {
            expect(decision.act).toBe('stop');
          }
          if (decision.act !== 'stop' || ranMs >= MIN_RUN_MS) return;
          // Stopped early: no window that stays the same can do that twice without a run between.
          const lastMs = deadline.atMs - neededMs(expected);
          expect(deadline.atMs).toBeGreaterThan(readyMs);
          expect(lastMs).toBeLessThanOrEqual(nowMs);
          if (kind === 'taken-away') expect(lastMs).toBeGreaterThan(readyMs);
        }),
        { numRuns: 1000 },
      );
    });

    test('one without any time left runs for the least time, and a limit is kept as ever', () => {
      const situation = {
        nowMs: 1_000,
        notices: [],
        expected: { imageBytes: 0, frozenMs: 1, durableMs: 2_000 },
        readyMs: 1_000,
        lastSaveMs: 0,
        savesFromMs: 0,
        mttpMs: undefined,
      };
      const at = (atMs: number, kind: 'limit' | 'taken-away'): readonly Notice[] => [
        { what: 'stop', deadline: { atMs, kind }, detail: 'd' },
      ];
      const until = (standing: readonly Notice[]): unknown => decide({ ...situation, standing });
      expect(decide({ ...situation, notices: at(500, 'taken-away'), standing: [] }).act).toBe('stop');
      expect(until(at(500, 'taken-away'))).toEqual({ act: 'wait', untilMs: 61_000 });
      expect(until(at(500, 'limit'))).toEqual({ act: 'wait', untilMs: 61_000 });
      expect(until(at(31_000, 'taken-away'))).toEqual({ act: 'wait', untilMs: 26_000 });
      expect(until(at(121_000, 'taken-away'))).toEqual({ act: 'wait', untilMs: 61_000 });
      expect(until(at(3_000, 'taken-away'))).toEqual({ act: 'wait', untilMs: 61_000 });
      expect(until(at(3_000, 'limit'))).toMatchObject({ act: 'stop' });
      expect(until([{ what: 'stop-now', detail: 'n' }])).toMatchObject({ act: 'stop' });
    });
  });

  test('the wait after a failure is doubled, and leaves time for another try before the end', () => {
    expect([0, 1, 2, 3, 4, 5000].map((before) => retryMs(before))).toEqual([2e3, 4e3, 8e3, 16e3, 30e3, 30e3]);
    expect([20_000, 6_000, 10, -5].map((leftMs) => retryMs(4, leftMs))).toEqual([10_000, 3_000, 500, 30_000]);
  });
});
