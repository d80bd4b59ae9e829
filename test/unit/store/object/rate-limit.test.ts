// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { readRateLimit, withRateLimit } from '../../../../src/store/object/rate-limit.js';
import { expectCode } from '../conformance.js';
import { MemoryClient } from './memory-client.js';

const never = { signal: new AbortController().signal };
const KIB = Buffer.alloc(1024);

/** A client on a clock that only sleeping moves, and the instants of its requests. */
function limited(bytesPerSecond: number) {
  let now = 0;
  const atMs: number[] = [];
  const client = new MemoryClient({ before: () => void atMs.push(now) });
  client.objects.set('there', KIB);
  const sleep = async (ms: number): Promise<void> => {
    const end = now + ms;
    await new Promise((resolve) => setImmediate(resolve));
    now = Math.max(now, end);
  };
  const slow = withRateLimit(client, { bytesPerSecond, nowMs: () => now, sleep });
  return {
    client,
    slow,
    atMs,
    put: (name: string, bytes = KIB) => slow.put(name, bytes, { ...never, ifAbsent: false }),
    get: (bytes: number) => slow.get('there', 0, Buffer.alloc(bytes), never),
    pass: (ms: number) => (now += ms),
  };
}

describe('a client with a rate limit', () => {
  test('waits before each request for the bytes of those before it, in both directions', async () => {
    const { put, get, atMs } = limited(1024);
    await put('a');
    await put('b', KIB.subarray(512));
    await get(1024);
    await get(1);
    expect(atMs).toEqual([0, 1000, 1500, 2500]);
  });

  test('lets requests that come at once go one after the other', async () => {
    const { put, atMs } = limited(1024);
    await Promise.all(['a', 'b', 'c', 'd'].map((name) => put(name)));
    expect(atMs).toEqual([0, 1000, 2000, 3000]);
  });

  test('does not save up time that was not used', async () => {
    const { put, atMs, pass } = limited(1024);
    await put('a');
    pass(60_000);
    for (const name of ['b', 'c']) await put(name);
    expect(atMs).toEqual([0, 60_000, 61_000]);
  });

  test('slows parts, and nothing that carries no bytes', async () => {
    const { client, slow, atMs } = limited(1024);
    const upload = await slow.beginUpload('a', never);
    const first = await slow.putPart(upload, { number: 1, offset: 0, isLast: false }, [KIB], never);
    const last = await slow.putPart(upload, { number: 2, offset: 1024, isLast: true }, [KIB], never);
    await slow.completeUpload(upload, [first, last], never);
    await slow.head('a', never);
    await slow.list('', never);
    await slow.listUploads(never);
    await slow.abortUpload(upload, never);
    await slow.remove('a', never);
    // begin, part, part, and what follows at once.
    expect(atMs).toEqual([0, 0, 1000, ...Array.from({ length: 6 }, () => 1000)]);
    expect(slow).toMatchObject({ url: client.url, maxParallelParts: client.maxParallelParts });
  });

  test('ends its wait when it is called off', async () => {
    const client = new MemoryClient();
    const slow = withRateLimit(client, { bytesPerSecond: 1 });
    await slow.put('a', KIB, { ...never, ifAbsent: false });
    const stop = new AbortController();
    const waiting = slow.put('b', KIB, { signal: stop.signal, ifAbsent: false });
    await new Promise((resolve) => setImmediate(resolve));
    expect(client.calls).toEqual(['put']);
    stop.abort();
    await expectCode('aborted', waiting);
    expect([...client.objects.keys()]).toEqual(['a']);
  });

  test('FF_STORE_RATE_LIMIT sets it', () => {
    expect(readRateLimit({})).toEqual({});
    expect(readRateLimit({ FF_STORE_RATE_LIMIT: '' })).toEqual({});
    expect(readRateLimit({ FF_STORE_RATE_LIMIT: '50M' })).toEqual({ bytesPerSecond: 50 * 2 ** 20 });
    expect(readRateLimit({ FF_STORE_RATE_LIMIT: '2048K' })).toEqual({ bytesPerSecond: 2 ** 21 });
    expect(readRateLimit({ FF_STORE_RATE_LIMIT: '2000000' })).toEqual({ bytesPerSecond: 2e6 });
    for (const wrong of ['0', '1', '1023K', '-5M', '5m', '1.5M', 'M', '50MB', 'fast']) {
      expect(() => readRateLimit({ FF_STORE_RATE_LIMIT: wrong })).toThrow('bytes per second');
    }
    const client = new MemoryClient();
    expect(withRateLimit(client, {})).toBe(client);
  });
});
