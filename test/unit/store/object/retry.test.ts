// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import type { ObjectClient } from '../../../../src/store/object/object-client.js';
import { readRetrySettings, withRetries } from '../../../../src/store/object/retry.js';
import { expectCode } from '../conformance.js';
import { MemoryClient, clientError } from './memory-client.js';

const never = { signal: new AbortController().signal };
const noSleep = { random: () => 0.5, sleep: () => Promise.resolve() };

/** Every method once, on an upload that is open. */
const METHODS: readonly (readonly [string, (client: ObjectClient) => Promise<unknown>])[] = [
  ['put', (client) => client.put('a', Buffer.from('x'), { ...never, ifAbsent: false })],
  ['get', (client) => client.get('there', 0, Buffer.alloc(1), never)],
  ['head', (client) => client.head('there', never)],
  ['list', (client) => client.list('', never)],
  ['listKeys', (client) => client.listKeys(undefined, never)],
  ['remove', (client) => client.remove('there', never)],
  ['beginUpload', (client) => client.beginUpload('a', never)],
  ['putPart', (client) => client.putPart(upload, { number: 1, offset: 0, isLast: true }, [Buffer.from('x')], never)],
  ['completeUpload', (client) => client.completeUpload(upload, [], never)],
  ['abortUpload', (client) => client.abortUpload(upload, never)],
  ['listUploads', (client) => client.listUploads(never)],
];
const upload = { name: 'a', id: 'open' };

function failing(times: number, passing: boolean): MemoryClient {
  let left = times;
  const client = new MemoryClient({
    before: () => {
      if (left-- > 0) throw clientError('store', 'stumbled', passing);
    },
  });
  client.objects.set('there', Buffer.from('x'));
  client.uploads.set('open', { name: 'a', parts: new Map() });
  return client;
}

describe('a client with retries', () => {
  test.each(METHODS)('%s is tried again after a passing failure', async (method, call) => {
    const client = failing(3, true);
    await call(withRetries(client, noSleep));
    expect(client.calls).toEqual([method, method, method, method]);
  });

  test.each(METHODS)('%s is not tried again after another failure', async (method, call) => {
    const client = failing(1, false);
    await expectCode('store', call(withRetries(client, noSleep)), 'stumbled');
    expect(client.calls).toEqual([method]);
  });

  test('waits longer each time, by chance, and not beyond its longest wait', async () => {
    const waits: number[] = [];
    const sleep = (ms: number): Promise<void> => {
      waits.push(ms);
      return Promise.resolve();
    };
    const client = withRetries(failing(9, true), { random: () => 0.5, maxDelayMs: 8_000, sleep });
    await client.head('there', never);
    expect(waits).toEqual([100, 200, 400, 800, 1600, 3200, 4000, 4000, 4000]);
  });

  test('gives up at its deadline, with the last reason, and no longer passing', async () => {
    const client = failing(1e6, true);
    const error = await expectCode('store', withRetries(client, { ...noSleep, deadlineMs: 0 }).head('a', never));
    expect(error.reason).toMatch(/^stumbled \(1 try in 0 s\)$/);
    expect(error.passing).toBe(false);
    expect(client.calls).toEqual(['head']);
  });

  test('ends at once when it is called off, also while it waits', async () => {
    const stop = new AbortController();
    const client = failing(1e6, true);
    // Without a fake sleep: it would last for minutes.
    const calling = withRetries(client, { random: () => 1e6, maxDelayMs: 1e9, deadlineMs: 1e12 }).head('a', {
      signal: stop.signal,
    });
    await new Promise((resolve) => setImmediate(resolve));
    stop.abort();
    const error = await expectCode('aborted', calling, 'stumbled');
    expect(error.passing).toBe(false);
    expect(client.calls).toEqual(['head']);
  });

  test('says once what it waits for, when it has done so for more than a few seconds', async () => {
    const told: string[] = [];
    const onWait = (message: string): void => void told.push(message);
    // A stumble, however often.
    const stumbling = withRetries(failing(4, true), { ...noSleep, onWait });
    await stumbling.head('there', never);
    expect(told).toEqual([]);
    // The next wait would last longer than that.
    const away = withRetries(failing(40, true), { ...noSleep, maxDelayMs: 10_000, onWait });
    await Promise.all([away.head('there', never), away.head('there', never)]);
    expect(told).toEqual([expect.stringMatching(/^mem:: stumbled; trying again for up to 1\d\d s$/)]);
  });

  test('says the same of its place', () => {
    const client = new MemoryClient({ maxParallelParts: 1 });
    expect(withRetries(client)).toMatchObject({ url: client.url, maxParallelParts: 1 });
  });

  test('FF_STORE_RETRY_S sets its deadline', () => {
    expect(readRetrySettings({})).toEqual({});
    expect(readRetrySettings({ FF_STORE_RETRY_S: '' })).toEqual({});
    expect(readRetrySettings({ FF_STORE_RETRY_S: '15' })).toEqual({ deadlineMs: 15_000 });
    for (const wrong of ['-1', '1.5', 'x', '1e9', '99999999']) {
      expect(() => readRetrySettings({ FF_STORE_RETRY_S: wrong })).toThrow('not a number of seconds');
    }
  });
});
