// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { createPartPool } from '../../../../src/store/object/part-pool.js';

const never = new AbortController().signal;
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Two segments are a part, six the budget. */
const aPool = () => createPartPool({ partBytes: 8, segmentBytes: 4, budgetBytes: 24 });

/** Work that ends when it is told to. */
function carrying(pool: ReturnType<typeof aPool>, segments: readonly Buffer[]) {
  let arrive: () => void = () => undefined;
  const done = pool.carry(segments, () => new Promise<void>((resolve) => (arrive = resolve)));
  return { arrive: () => arrive(), done };
}

describe('the pool of parts', () => {
  test('while a part is on its way nothing is made over the budget, and its memory serves those who wait', async () => {
    const pool = aPool();
    const held = await Promise.all(Array.from({ length: 6 }, () => pool.take(never)));
    expect(new Set(held).size).toBe(6);
    const part = carrying(pool, held.slice(0, 2));
    const got: Buffer[] = [];
    for (let i = 0; i < 2; i++) void pool.take(never).then((segment) => got.push(segment));
    await settle();
    expect(got).toEqual([]);
    part.arrive();
    await part.done;
    await settle();
    expect(new Set(got)).toEqual(new Set(held.slice(0, 2)));
  });

  test('with no part on its way nobody waits, since nobody would give anything back', async () => {
    const pool = aPool();
    const held = await Promise.all(Array.from({ length: 10 }, () => pool.take(never)));
    expect(new Set(held).size).toBe(10);
    // What is over the budget goes when it is given back; the rest is used again.
    pool.give(held);
    const again = await Promise.all(Array.from({ length: 6 }, () => pool.take(never)));
    expect(again.every((segment) => held.includes(segment))).toBe(true);
  });

  test('who stops waiting takes nothing', async () => {
    const pool = aPool();
    const held = await Promise.all(Array.from({ length: 6 }, () => pool.take(never)));
    const part = carrying(pool, held.slice(0, 1));
    const stop = new AbortController();
    const gone = pool.take(stop.signal);
    const waiting = pool.take(never);
    stop.abort(new Error('enough'));
    await expect(gone).rejects.toThrow('enough');
    await expect(pool.take(stop.signal)).rejects.toThrow('enough');
    part.arrive();
    expect(await waiting).toBe(held[0]);
    await part.done;
  });

  test('work that fails gives its memory back as well', async () => {
    const pool = aPool();
    const held = await Promise.all(Array.from({ length: 6 }, () => pool.take(never)));
    const failing = pool.carry(held.slice(0, 1), async () => {
      await settle();
      throw new Error('broken');
    });
    const waiting = pool.take(never);
    await expect(failing).rejects.toThrow('broken');
    expect(await waiting).toBe(held[0]);
  });

  test('writers that fill and send parts in any order all come to their end, within budget and a part each', () => {
    const input = fc.record({
      writers: fc.integer({ min: 1, max: 5 }),
      steps: fc.array(fc.record({ pick: fc.nat(1000), isArrival: fc.boolean() }), { maxLength: 120 }),
    });
    return fc.assert(
      fc.asyncProperty(input, async ({ writers, steps }) => {
        const pool = aPool();
        const filling = Array.from({ length: writers }, () => ({ segments: [] as Buffer[], waits: false }));
        let underWay: { segments: readonly Buffer[]; part: ReturnType<typeof carrying> }[] = [];
        for (const { pick, isArrival } of steps) {
          const writer = filling[pick % writers];
          if (isArrival) {
            for (const { part } of underWay.splice(pick % (underWay.length + 1), 1)) {
              part.arrive();
              await part.done;
            }
          } else if (writer !== undefined && !writer.waits) {
            writer.waits = true;
            void pool.take(never).then((segment) => {
              writer.waits = false;
              writer.segments.push(segment);
              if (writer.segments.length < 2) return;
              underWay = [...underWay, { segments: writer.segments, part: carrying(pool, writer.segments) }];
              writer.segments = [];
            });
          }
          await settle();
          const out = [...filling.flatMap((one) => one.segments), ...underWay.flatMap((one) => one.segments)];
          expect(new Set(out).size).toBe(out.length);
          expect(out.length * 4).toBeLessThanOrEqual(24 + writers * 8);
          if (filling.some((one) => one.waits)) expect(underWay.length).toBeGreaterThan(0);
        }
      }),
      { numRuns: 60 },
    );
  });
});
