// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { openObjectReader } from '../../../../src/store/object/object-reader.js';
import { noise } from '../../image/support.js';
import { expectCode } from '../conformance.js';
import { MemoryClient, type MemoryOptions, clientError } from './memory-client.js';

const NAME = 'shard';
const OBJECT = Buffer.from(noise(40 << 20, 1));
const CHUNK = 300_000;
const CHUNKS = Math.floor(OBJECT.length / CHUNK);

function open(options: MemoryOptions = {}) {
  const client = new MemoryClient(options);
  client.objects.set(NAME, OBJECT);
  const reader = openObjectReader(client, NAME, OBJECT.length, new AbortController().signal);
  const read = async (chunk: number): Promise<void> => {
    const into = Buffer.alloc(CHUNK);
    await reader.read(chunk * CHUNK, into);
    if (!into.equals(OBJECT.subarray(chunk * CHUNK, (chunk + 1) * CHUNK))) throw new Error(`chunk ${chunk} is wrong`);
  };
  const count = (method: string): number => client.calls.filter((call) => call.startsWith(method)).length;
  return { client, reader, read, count };
}

/** Read chunks in this order, so many at a time. */
async function readAll(read: (chunk: number) => Promise<void>, order: readonly number[], sideBySide = 4) {
  let next = 0;
  const follow = async (): Promise<void> => {
    for (let at = next++; at < order.length; at = next++) await read(order[at] ?? 0);
  };
  await Promise.all(Array.from({ length: sideBySide }, follow));
}

const inOrder = Array.from({ length: CHUNKS }, (_, i) => i);
/** Neighbours in pairs, the second one first. */
const swapped = inOrder.map((i) => Math.min(i ^ 1, CHUNKS - 1));

describe('reading an object', () => {
  test('takes few requests where reads follow each other', async () => {
    const { read, count } = open();
    await readAll(read, inOrder);
    expect({ get: count('get'), open: count('open') }).toEqual({ get: 1, open: 2 });
  });

  test('takes few requests where neighbours are swapped', async () => {
    const { read, count } = open();
    await readAll(read, swapped);
    expect(count('open')).toBeLessThanOrEqual(5);
    expect(count('get')).toBeLessThanOrEqual(CHUNKS / 2 + 2);
  });

  test('asks for no more than it needs where reads are far apart', async () => {
    const { read, count } = open();
    const apart = inOrder.filter((i) => i % 8 === 0);
    await readAll(read, apart);
    expect({ get: count('get'), open: count('open') }).toEqual({ get: apart.length, open: 0 });
  });

  test.each([1, 2, 3])('gives the right bytes in any order (%i)', async (seed) => {
    const { read } = open();
    const random = noise(CHUNKS * 4, seed);
    const order = inOrder
      .map((i) => ({ i, at: i * 4 + ((random[i] ?? 0) % 32) }))
      .sort((one, other) => one.at - other.at)
      .map(({ i }) => i);
    await readAll(read, order, 6);
  });

  test('goes on where a long request breaks off', async () => {
    let breaks = 0;
    const { read, count } = open({
      beforeRead: (offset) => {
        if (offset % 7 !== 0) return;
        breaks++;
        throw clientError('store', 'reset', true);
      },
    });
    await readAll(read, inOrder);
    expect(breaks).toBeGreaterThan(0);
    expect(count('get')).toBeGreaterThan(breaks);
  });

  test('does without long requests where they are refused', async () => {
    const { read, count } = open({
      before: ({ method }) => {
        if (method === 'open') throw clientError('store', 'refused');
      },
    });
    await readAll(read, inOrder);
    expect(count('get')).toBe(CHUNKS);
  });

  test('holds at most two long requests at a time, and ends them', async () => {
    const { client, reader, read } = open();
    for (let i = 0; i < 8; i++) {
      for (const start of [0, 30, 60, 90]) await read(start + i);
      expect(client.openBodies).toBeLessThanOrEqual(2);
    }
    expect(client.openBodies).toBe(2);
    reader.close();
    await new Promise((resolve) => setImmediate(resolve));
    expect(client.openBodies).toBe(0);
    await expectCode('aborted', read(0));
  });

  test('tells what is wrong with the object', async () => {
    const { client, read } = open();
    await read(0);
    await read(1);
    client.objects.set(NAME, OBJECT.subarray(0, 5 * CHUNK));
    const late = openObjectReader(client, NAME, OBJECT.length, new AbortController().signal);
    await late.read(3 * CHUNK, Buffer.alloc(CHUNK));
    await late.read(4 * CHUNK, Buffer.alloc(CHUNK));
    await expectCode('image', late.read(5 * CHUNK, Buffer.alloc(CHUNK)));
  });
});
