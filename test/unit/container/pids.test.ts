// SPDX-License-Identifier: Apache-2.0
import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import {
  APP_PID,
  RESERVED_PIDS,
  formatRanges,
  lastPidBeforeRestore,
  parseRanges,
  pidsToUseUp,
  readPidMax,
} from '../../../src/container/pids.js';
import { askScript, moduleUrl, ownPids } from '../linux/support.js';

jest.setTimeout(30_000);

const HEADROOM = 64;

describe('lastPidBeforeRestore', () => {
  const pidMaxes = fc.constantFrom(1200, 2000, 5000, 32768, 4194304);
  /** Singles and runs, anywhere up to the wrap. */
  const images = pidMaxes.chain((pidMax) =>
    fc.record({
      pidMax: fc.constant(pidMax),
      taken: fc
        .array(
          fc.record({
            start: fc.oneof(
              fc.integer({ min: 1, max: pidMax - 1 }),
              fc.integer({ min: pidMax - 200, max: pidMax - 1 }),
            ),
            length: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 300 })),
          }),
          { maxLength: 30 },
        )
        .map((runs) =>
          runs.flatMap(({ start, length }) =>
            Array.from({ length }, (_, i) => start + i).filter((pid) => pid < pidMax),
          ),
        ),
    }),
  );

  test('is followed by 64 PIDs of which the image has none, without a wrap among them', () => {
    fc.assert(
      fc.property(images, ({ pidMax, taken }) => {
        const used = new Set(taken);
        let last: number;
        try {
          last = lastPidBeforeRestore(taken, pidMax);
        } catch (error) {
          // Only when there is no such place.
          expect(error).toMatchObject({ code: 'host' });
          let free = 0;
          let widest = 0;
          for (let pid = RESERVED_PIDS; pid < pidMax; pid++) {
            free = used.has(pid) ? 0 : free + 1;
            widest = Math.max(widest, free);
          }
          expect(widest).toBeLessThanOrEqual(HEADROOM);
          return;
        }
        expect(last).toBeGreaterThanOrEqual(RESERVED_PIDS - 1);
        const following = Array.from({ length: HEADROOM }, (_, i) => last + 1 + i);
        expect(following.filter((pid) => used.has(pid) || pid >= pidMax)).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  test('is the highest of the image where that leaves room, and never below the application', () => {
    expect(lastPidBeforeRestore([], 32768)).toBe(APP_PID - 1);
    expect(lastPidBeforeRestore([1, 17, 400], 32768)).toBe(APP_PID - 1);
    expect(lastPidBeforeRestore([1000, 1001, 5001], 32768)).toBe(5001);
    expect(lastPidBeforeRestore([1000, 32767 - HEADROOM], 32768)).toBe(32767 - HEADROOM);
  });

  test('is a gap below when the image reaches up to the wrap', () => {
    expect(lastPidBeforeRestore([1000, 32767], 32768)).toBe(RESERVED_PIDS - 1);
    const low = Array.from({ length: 700 }, (_, i) => 300 + i);
    expect(lastPidBeforeRestore([...low, 1000, 1064, 1130, 32767], 32768)).toBe(1064);
  });

  test('says what to do when the image uses nearly all', () => {
    const all = Array.from({ length: 1700 }, (_, i) => 300 + i);
    expect(() => lastPidBeforeRestore(all, 2000)).toThrow(expect.objectContaining({ hint: 'raise kernel.pid_max' }));
  });
});

describe('where the counter cannot be set, before a restore', () => {
  test.each([
    ['up to the highest PID of the image', [1000, 1005], 31, 1005 - 31],
    ['none where the counter is at it, or past it', [1000, 1005], 1005, 0],
    ['none where the counter is past it', [1000, 1005], 7000, 0],
    ['up to the first gap where the highest PID is far', [1000, 1005, 300_000], 31, 1005 - 31],
    ['up to the application’s where even what follows is free', [300_000], 31, APP_PID - 1 - 31],
    ['past a run of the image', [...Array(500).keys()].map((i) => 2000 + i).concat(300_000), 1990, 2499 - 1990],
    ['past gaps that are too narrow', [1000, 1064, 1128, 300_000], 1000, 128],
    ['around the wrap, past the image’s', [1000, 4_194_300], 4_194_290, 10],
    ['around the wrap, where it has some behind it', [310, 1000, 4_194_300], 4_194_299, 4 + 11],
  ])('%s', (_, taken, last, expected) => {
    expect(pidsToUseUp(taken, last, 4_194_304)).toBe(expected);
  });
});

describe('ranges', () => {
  test('come back as they were, sorted and each once', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 4_194_304 })), fc.array(fc.nat({ max: 50 })), (wide, dense) => {
        const numbers = [...wide, ...dense];
        const text = formatRanges(numbers);
        expect(parseRanges(text)).toEqual([...new Set(numbers)].sort((a, b) => a - b));
        // One part for each run, which is what keeps 500 threads short.
        expect(text).toMatch(/^$|^\d+(-\d+)?(,\d+(-\d+)?)*$/);
      }),
    );
    expect(formatRanges([3, 1, 2, 7, 9, 8, 8])).toBe('1-3,7-9');
  });

  test.each([
    'x',
    '1-',
    '-1',
    '1,,2',
    '5-3',
    '1 ,2',
    '1.5',
    ' ',
    '12345678',
    '1-2-3',
    '2,1',
    '1-3,3',
    '4194305',
    '0x10',
    '1,',
  ])('%j is none', (text) => {
    expect(parseRanges(text)).toBeUndefined();
  });

  test('cannot be made to fill the memory, as a damaged image might', () => {
    const many = Array.from({ length: 2000 }, () => '0-4194304').join(',');
    const before = process.memoryUsage().rss;
    expect(parseRanges(many)).toBeUndefined();
    expect(process.memoryUsage().rss - before).toBeLessThan(500 << 20);
  });
});

describe('PIDs of a namespace', () => {
  test('go on after the one that was set', async () => {
    const script = `
      import { execFileSync } from 'node:child_process';
      import { setLastPid } from '${moduleUrl('container/pids.js')}';
      setLastPid(4999);
      console.log(execFileSync('/bin/sh', ['-c', 'echo $$'], { encoding: 'utf8' }));`;
    expect(await askScript(script, ownPids())).toBe(5000);
    expect(readPidMax()).toBeGreaterThan(300);
  });

  test('go on there as well where /proc/sys is read-only, as container engines make it', async () => {
    const script = `
      import { execFileSync } from 'node:child_process';
      import { setLastPid } from '${moduleUrl('container/pids.js')}';
      setLastPid(999);
      const next = execFileSync('/bin/sh', ['-c', 'echo $$'], { encoding: 'utf8' });
      try { setLastPid(500); } catch (error) { console.log(JSON.stringify([Number(next), error.code])); }`;
    const readOnly = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"';
    expect(await askScript(script, [...ownPids(), 'sh', '-c', readOnly, 'sh'])).toEqual([1000, 'host']);
  });

  test('need not be used up there for an image that the counter has passed, nor all for one with a far PID', async () => {
    const script = `
      import { readFileSync } from 'node:fs';
      import { execFileSync } from 'node:child_process';
      import { makeRoomForPids } from '${moduleUrl('container/pids.js')}';
      const next = () => Number(execFileSync('/bin/sh', ['-c', 'echo $$'], { encoding: 'utf8' }));
      makeRoomForPids([1000, 1001, 4000]);
      const near = next();
      makeRoomForPids([1000, 1001]);
      const past = next();
      makeRoomForPids([1000, 4002, 4003, 4010, Number(readFileSync('/proc/sys/kernel/pid_max', 'utf8')) - 1]);
      console.log(JSON.stringify([near, past, next()]));`;
    const readOnly = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"';
    expect(await askScript(script, [...ownPids(), 'sh', '-c', readOnly, 'sh'])).toEqual([4001, 4002, 4011]);
  });

  test('that may not be set are reported with the way out', async () => {
    const script = `
      import { setLastPid } from '${moduleUrl('container/pids.js')}';
      try { setLastPid(4999); } catch (error) { console.log(JSON.stringify([error.code, error.hint])); }`;
    const prefix = ['unshare', '--user', '--mount', 'sh', '-c', 'exec "$@"', 'sh'];
    expect(await askScript(script, prefix)).toEqual([
      'host',
      expect.stringContaining('CAP_CHECKPOINT_RESTORE') as unknown,
    ]);
  });
});
