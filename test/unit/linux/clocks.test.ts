// SPDX-License-Identifier: Apache-2.0
import { describe, expect, jest, test } from '@jest/globals';
import { readClockOffsets, readClocks } from '../../../src/linux/clocks.js';
import { askScript, moduleUrl } from './support.js';

jest.setTimeout(30_000);

const SECOND = 1_000_000_000n;

describe('clocks', () => {
  test('run forwards, as Node sees them too', () => {
    const first = readClocks();
    const node = process.hrtime.bigint();
    const second = readClocks();
    expect(node - first.monotonicNs).toBeGreaterThanOrEqual(0n);
    expect(second.monotonicNs - node).toBeGreaterThanOrEqual(0n);
    expect(second.boottimeNs - first.boottimeNs).toBeGreaterThanOrEqual(second.monotonicNs - node);
  });

  test('show the offsets of a time namespace, negative ones included', async () => {
    const user = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
    const before = readClocks();
    const ours = readClockOffsets();
    const answer = (await askScript(
      `
      import { readClockOffsets, readClocks } from '${moduleUrl('linux/clocks.js')}';
      const text = (clocks) => [String(clocks.monotonicNs), String(clocks.boottimeNs)];
      console.log(JSON.stringify({ offsets: text(readClockOffsets()), clocks: text(readClocks()) }));`,
      ['unshare', ...user, '--time', '--monotonic=5000', '--boottime=-3', '--fork', '--'],
    )) as { offsets: string[]; clocks: string[] };
    expect(answer.offsets.map(BigInt)).toEqual([5000n * SECOND, -3n * SECOND]);
    const ahead = BigInt(answer.clocks[0] ?? 0) - (before.monotonicNs - ours.monotonicNs);
    expect(ahead / SECOND).toBeGreaterThanOrEqual(5000n);
    expect(ahead / SECOND).toBeLessThan(5015n);
    const behind = BigInt(answer.clocks[1] ?? 0) - (before.boottimeNs - ours.boottimeNs);
    expect(behind).toBeGreaterThanOrEqual(-3n * SECOND);
    expect(behind).toBeLessThan(12n * SECOND);
  });
});
