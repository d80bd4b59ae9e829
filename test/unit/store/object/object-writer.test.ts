// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { createObjectWriter } from '../../../../src/store/object/object-writer.js';
import { createPartPool, type PartPool } from '../../../../src/store/object/part-pool.js';
import type { StoreWriter } from '../../../../src/store/store.js';
import { expectCode } from '../conformance.js';
import { MemoryClient, clientError, untilAborted } from './memory-client.js';

const PART = 16;
const aPool = (): PartPool => createPartPool({ partBytes: PART, segmentBytes: 4, budgetBytes: 3 * PART });

/** Bytes that tell where they stand. */
const pattern = (length: number): Buffer => Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 31 + 7) % 251));

const open = (client: MemoryClient, parts: PartPool = aPool(), name = 'a'): Promise<StoreWriter> =>
  createObjectWriter({ client, name, parts });

/** Some turns of the event loop, so that calls end in another order than they began. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Cuts bytes at the given places. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return sorted.slice(1).map((end, i) => bytes.subarray(sorted[i], end));
}

describe('a writer of objects', () => {
  test('any split of appends gives the same object, whatever order the parts arrive in', () => {
    const input = fc.record({
      length: fc.nat(PART * 8),
      places: fc.array(fc.nat(PART * 8), { maxLength: 20 }),
      delays: fc.array(fc.nat(5), { minLength: 1, maxLength: 10 }),
      waits: fc.boolean(),
      maxParallelParts: fc.constantFrom(1, 2, 4),
    });
    return fc.assert(
      fc.asyncProperty(input, async ({ length, places, delays, waits, maxParallelParts }) => {
        const client = new MemoryClient({
          maxParallelParts,
          before: ({ number }) => turns(delays[number % delays.length] ?? 0),
        });
        const bytes = pattern(length);
        const writer = await open(client);
        const pending: Promise<void>[] = [];
        for (const piece of cut(bytes, places)) {
          const copy = Buffer.from(piece);
          // A caller may use its bytes again once the append has ended.
          const appended = writer.append([copy]).then(() => void copy.fill(0xff));
          if (waits) await appended;
          else pending.push(appended);
        }
        await Promise.all([...pending, writer.finish()]);
        expect(client.objects.get('a')?.equals(bytes)).toBe(true);
        expect(client.uploads.size).toBe(0);
        expect(client.mostParallel).toBeLessThanOrEqual(maxParallelParts);
        // No upload is begun for what one request can carry.
        expect(client.calls.includes('beginUpload')).toBe(length > PART);
      }),
      { numRuns: 100 },
    );
  });

  test.each(['before', 'after'] as const)(
    'a call that fails %s its work, each in turn, leaves nothing',
    async (when) => {
      for (const length of [0, PART, PART * 5 + 3]) {
        let calls = Infinity;
        for (let nth = 1; nth <= calls; nth++) {
          const client = new MemoryClient({
            [when]: ({ number }: { number: number }) => {
              if (number === nth) throw clientError('store', 'broken');
            },
          });
          const writer = await open(client);
          const writing = (async () => {
            for (const piece of cut(pattern(length), [5, 40, 41])) await writer.append([piece]);
            await writer.finish();
          })();
          await writing.catch(() => undefined);
          if (client.calls.length < nth) {
            // That many calls are all it makes: this one has succeeded.
            await writing;
            calls = client.calls.length;
            break;
          }
          await expectCode('store', writing, 'broken');
          if (when === 'before') expect(client.objects.size).toBe(0);
          await writer.abort();
          expect([...client.objects.keys()]).toEqual([]);
          // What was begun without our knowledge is for the sweep.
          const unknown = when === 'after' && client.calls[nth - 1] === 'beginUpload' ? 1 : 0;
          expect(client.uploads.size).toBe(unknown);
        }
        expect(calls).toBeGreaterThan(0);
      }
    },
  );

  test('after a failure every append and the end tell it', async () => {
    const client = new MemoryClient({
      before: ({ method }) => {
        if (method === 'putPart') throw clientError('store', 'broken');
      },
    });
    const writer = await open(client);
    await writer.append([pattern(PART * 4)]).catch(() => undefined);
    await expectCode('store', writer.append([pattern(1)]), 'broken');
    await expectCode('store', writer.finish(), 'broken');
    await writer.abort();
  });

  test('abort ends calls that never would, wherever the writer stands', async () => {
    const stages: readonly (readonly [string, number])[] = [
      ['put', PART],
      ['beginUpload', PART * 2],
      ['putPart', PART * 6],
      ['completeUpload', PART * 2],
    ];
    for (const [stage, length] of stages) {
      const client = new MemoryClient({
        before: (call) => (call.method === stage ? untilAborted(call) : undefined),
      });
      const writer = await open(client);
      const appending = writer.append([pattern(length)]).catch(() => undefined);
      await turns(3);
      const finishing = writer.finish().catch((error: unknown) => error);
      await turns(3);
      expect(client.calls).toContain(stage);
      await Promise.all([writer.abort(), writer.abort()]);
      await appending;
      await finishing;
      expect([...client.objects.keys(), ...client.uploads.keys()]).toEqual([]);
    }
  });

  test('abort while the last request is on its way removes what comes of it', async () => {
    for (const [method, length] of [
      ['put', 3],
      ['completeUpload', PART * 2],
    ] as const) {
      const client = new MemoryClient({
        // The service has done it; its answer comes late.
        after: (call) => (call.method === method ? turns(10) : undefined),
      });
      const writer = await open(client);
      await writer.append([pattern(length)]);
      const finishing = writer.finish();
      finishing.catch(() => undefined);
      await turns(5);
      expect(client.objects.size).toBe(1);
      await writer.abort();
      await expectCode('internal', finishing, 'aborted');
      expect(client.objects.size).toBe(0);
    }
  });

  test('many writers share few buffers, and none waits for ever', async () => {
    const client = new MemoryClient({ before: ({ number }) => turns(number % 4) });
    const parts = aPool();
    const lengths = Array.from({ length: 12 }, (_, i) => ((i * 53) % 9) * PART + i);
    await Promise.all(
      lengths.map(async (length, i) => {
        const writer = await open(client, parts, `object-${i}`);
        for (const piece of cut(pattern(length), [3, 20, 64])) await writer.append([piece]);
        // Some give up in the middle: their buffers serve the others.
        if (i % 4 === 3) await writer.abort();
        else await writer.finish();
      }),
    );
    for (const [i, length] of lengths.entries()) {
      const found = client.objects.get(`object-${i}`);
      if (i % 4 === 3) expect(found).toBeUndefined();
      else expect(found?.equals(pattern(length))).toBe(true);
    }
    expect(client.uploads.size).toBe(0);
  });

  test('refuses to be used after its end', async () => {
    const writer = await open(new MemoryClient());
    await writer.finish();
    await expectCode('internal', writer.append([pattern(1)]), 'finished');
    await expectCode('internal', writer.finish(), 'finished');
    await writer.abort();
    const other = await open(new MemoryClient());
    await other.abort();
    await expectCode('internal', other.finish(), 'aborted');
  });
});
