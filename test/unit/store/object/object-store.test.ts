// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { createObjectStore } from '../../../../src/store/object/object-store.js';
import { describeStore, expectCode } from '../conformance.js';
import { MemoryClient, clientError } from './memory-client.js';

describeStore('object storage', () => {
  const client = new MemoryClient();
  return { open: () => createObjectStore(client) };
});

describe('a store of objects', () => {
  test.each([
    ['kept', 'atomic'],
    ['refused', 'best-effort'],
    ['ignored', 'best-effort'],
  ] as const)('where conditions are %s, fencing is %s', async (conditions, fencing) => {
    const client = new MemoryClient({ conditions });
    const store = createObjectStore(client);
    expect(await store.prepare()).toEqual({ fencing });
    expect(client.objects.size).toBe(0);
    expect(await store.createIfAbsent('manifest-1', Buffer.from('first'))).toBe('created');
    expect(await store.createIfAbsent('manifest-1', Buffer.from('second'))).toBe('exists');
    expect(client.objects.get('manifest-1')?.toString()).toBe('first');
  });

  test('prepare asks the service each time', async () => {
    let broken = false;
    const client = new MemoryClient({
      before: ({ method }) => {
        if (broken && method === 'put') throw clientError('store', 'permission denied');
      },
    });
    const store = createObjectStore(client);
    await store.prepare();
    broken = true;
    await expectCode('store', store.prepare(), 'permission denied');
  });

  test('a commit whose answer got lost is ours when it is tried again', async () => {
    const client = new MemoryClient();
    const store = createObjectStore(client);
    client.objects.set('manifest-1', Buffer.from('ours'));
    expect(await store.createIfAbsent('manifest-1', Buffer.from('ours'))).toBe('created');
    expect(await store.createIfAbsent('manifest-1', Buffer.from('our'))).toBe('exists');
    expect(await store.createIfAbsent('manifest-1', Buffer.from('ours and more'))).toBe('exists');
  });

  test('a commit that was refused, and whose winner was removed since, has not happened', async () => {
    const client = new MemoryClient({
      before: ({ method }) => {
        if (method === 'get') client.objects.clear();
      },
    });
    client.objects.set('manifest-1', Buffer.from('theirs'));
    expect(await createObjectStore(client).createIfAbsent('manifest-1', Buffer.from('ours'))).toBe('exists');
  });

  test('sweeps uploads whose time by another clock lies in the future, when no idle time is asked for', async () => {
    const client = new MemoryClient();
    const store = createObjectStore(client);
    await client.beginUpload('dead.ffs', { signal: new AbortController().signal });
    client.modifiedAtMs = Date.now() + 3600_000;
    expect(await store.sweepUnfinished(() => true, 1)).toBe(0);
    expect(await store.sweepUnfinished(() => true, 0)).toBe(1);
  });

  test("sweeps a dead machine's probe, but none that may be in use", async () => {
    const client = new MemoryClient();
    const store = createObjectStore(client);
    await store.put('probe-0000', Buffer.from('probe'));
    expect(await store.sweepUnfinished(() => true, 0)).toBe(0);
    client.modifiedAtMs = Date.now() - 7200_000;
    expect(await store.sweepUnfinished(() => true, 0)).toBe(1);
    expect(await store.list('')).toEqual([]);
  });

  test('an object that ends before what was asked for is cut short', async () => {
    const client = new MemoryClient();
    const store = createObjectStore(client);
    await store.put('a.ffs', Buffer.from('0123456789'));
    const reader = await store.openReader('a.ffs');
    expect(reader.sizeBytes).toBe(10);
    const calls = client.calls.length;
    await expectCode('image', reader.read(8, Buffer.alloc(4)), '12 bytes are needed, 10 are there');
    // It is known without asking.
    expect(client.calls.length).toBe(calls);
    client.objects.set('a.ffs', Buffer.from('0123'));
    await expectCode('image', reader.read(2, Buffer.alloc(4)), '6 bytes are needed, 4 are there');
    await expectCode('image', reader.read(6, Buffer.alloc(4)), '10 bytes are needed');
    client.objects.delete('a.ffs');
    await expectCode('not-found', reader.read(0, Buffer.alloc(4)));
  });
});
