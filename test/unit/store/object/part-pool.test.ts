// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { createPartPool } from '../../../../src/store/object/part-pool.js';

const never = new AbortController().signal;

describe('the pool of parts', () => {
  test('gives each writer a buffer at once, and two more to all together', async () => {
    const pool = createPartPool(16);
    const own = [pool.enter(), pool.enter(), pool.enter()];
    const more = [await pool.next(never), await pool.next(never)];
    expect(new Set([...own, ...more]).size).toBe(5);
    let got: Buffer | undefined;
    const waiting = pool.next(never).then((buffer) => (got = buffer));
    await Promise.resolve();
    expect(got).toBeUndefined();
    pool.give(own[1] ?? Buffer.alloc(0));
    await waiting;
    expect(got).toBe(own[1]);
  });

  test('who stops waiting takes nothing', async () => {
    const pool = createPartPool(16);
    const held = [pool.enter(), await pool.next(never), await pool.next(never)];
    const stop = new AbortController();
    const gone = pool.next(stop.signal);
    const waiting = pool.next(never);
    stop.abort(new Error('enough'));
    await expect(gone).rejects.toThrow('enough');
    await expect(pool.next(stop.signal)).rejects.toThrow('enough');
    pool.give(held[0] ?? Buffer.alloc(0));
    expect(await waiting).toBe(held[0]);
  });

  test('never has more buffers out than writers and two, and never lets all wait', () => {
    const step = fc.record({ kind: fc.constantFrom('enter', 'send', 'arrive', 'leave'), pick: fc.nat(1000) });
    return fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const pool = createPartPool(8);
        const writers: { filling: Buffer | undefined }[] = [];
        const underWay: Buffer[] = [];
        const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
        for (const { kind, pick } of steps) {
          const writer = writers[pick % Math.max(1, writers.length)];
          if (kind === 'enter') writers.push({ filling: pool.enter() });
          if (kind === 'send' && writer?.filling !== undefined) {
            underWay.push(writer.filling);
            writer.filling = undefined;
            void pool.next(never).then((buffer) => (writer.filling = buffer));
          }
          if (kind === 'arrive') for (const one of underWay.splice(pick % (underWay.length + 1), 1)) pool.give(one);
          if (kind === 'leave' && writer?.filling !== undefined) {
            pool.give(writer.filling);
            pool.leave();
            writers.splice(writers.indexOf(writer), 1);
          }
          await settle();
          const out = [...writers.flatMap((one) => one.filling ?? []), ...underWay];
          expect(new Set(out).size).toBe(out.length);
          const waiting = writers.filter((one) => one.filling === undefined).length;
          if (waiting > 0) expect(underWay.length).toBeGreaterThan(0);
        }
        while (underWay.length > 0) {
          for (const one of underWay.splice(0)) pool.give(one);
          await settle();
        }
        expect(writers.filter((one) => one.filling === undefined)).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });
});
