// SPDX-License-Identifier: Apache-2.0
import { beforeEach, describe, expect, test } from '@jest/globals';
import { FastFreezeError, type ErrorCode } from '../../../src/base/errors.js';
import type { Store } from '../../../src/store/store.js';

/** A place for a store: `open` twice must give two independent views of the same objects. */
export interface StorePlace {
  open(): Store;
  /** False where unfinished uploads have no date, so that none can be told to be idle. */
  readonly datesUploads?: boolean;
  /** False where the service keeps no list of unfinished uploads, and drops them by itself. */
  readonly listsUnfinished?: boolean;
  /** False where the service has no conditions: of twins more than one may believe to be first, but one of these is. */
  readonly isAtomic?: boolean;
  /** How often twins are let loose on each other. */
  readonly rounds?: number;
}

/**
 * What every kind of store must do. A new kind passes by giving a factory of empty places. `write-once`: its objects can neither
 * be replaced nor removed, nor all be listed, and it says so.
 */
export function describeStore(kind: string, makePlace: () => StorePlace, ability?: 'write-once'): void {
  const isWriteOnce = ability === 'write-once';
  const testIfMutable = isWriteOnce ? (): void => undefined : test;
  describe(`${kind} store`, () => {
    let place: StorePlace;
    let store: Store;
    beforeEach(async () => {
      place = makePlace();
      store = place.open();
      await store.prepare();
    });

    const isAtomic = (): boolean => place.isAtomic ?? true;
    const write = async (name: string, ...parts: string[]): Promise<void> => {
      const writer = await store.createWriter(name);
      for (const part of parts) await writer.append([Buffer.from(part)]);
      await writer.finish();
    };
    const content = async (name: string): Promise<string> => {
      const reader = await place.open().openReader(name);
      const bytes = Buffer.alloc(reader.sizeBytes);
      await reader.read(0, bytes);
      reader.close();
      return bytes.toString();
    };
    const names = async (prefix: string): Promise<string[]> =>
      (await place.open().list(prefix)).map((object) => object.name);

    test('shows an object only when it is finished, whole', async () => {
      const writer = await store.createWriter('a.ffs');
      await writer.append([Buffer.from('one '), Buffer.from('two ')]);
      expect(await place.open().size('a.ffs')).toBeUndefined();
      expect(await names('')).toEqual([]);
      await writer.append([Buffer.from('three')]);
      await writer.finish();
      expect(await content('a.ffs')).toBe('one two three');
      expect(await place.open().size('a.ffs')).toBe(13);
    });

    test('keeps the order of appends that do not wait for each other', async () => {
      const writer = await store.createWriter('a.ffs');
      const parts = Array.from({ length: 50 }, (_, i) => Buffer.alloc(1 + ((i * 7919) % 5000), i + 1));
      await Promise.all(parts.map((part) => writer.append([part])));
      await writer.finish();
      expect((await content('a.ffs')) === Buffer.concat(parts).toString()).toBe(true);
    });

    test('finish waits for appends that are under way', async () => {
      const writer = await store.createWriter('a.ffs');
      const pending = writer.append([Buffer.alloc(3_000_000, 'x')]);
      await writer.finish();
      await pending;
      expect(await store.size('a.ffs')).toBe(3_000_000);
    });

    test('can hold an empty object', async () => {
      await write('empty');
      expect(await store.size('empty')).toBe(0);
      expect(await content('empty')).toBe('');
    });

    test('abort leaves nothing, also twice and while appending', async () => {
      const writer = await store.createWriter('a.ffs');
      const pending = writer.append([Buffer.alloc(100_000)]).catch(() => undefined);
      await writer.abort();
      await writer.abort();
      await pending;
      expect(await names('')).toEqual([]);
      expect(await store.sweepUnfinished(() => true, 0)).toBe(0);
      await expectCode('internal', writer.append([Buffer.from('late')]));
    });

    test('abort after finish keeps the object', async () => {
      const writer = await store.createWriter('a.ffs');
      await writer.finish();
      await writer.abort();
      expect(await store.size('a.ffs')).toBe(0);
    });

    test('of twins that create one name exactly one succeeds, and its bytes stand', async () => {
      for (let round = 0; round < (place.rounds ?? (isAtomic() ? 10 : 3)); round++) {
        const name = `manifest-${round}`;
        const outcomes = await Promise.all(
          Array.from({ length: 8 }, (_, i) => place.open().createIfAbsent(name, Buffer.from(`writer ${i}`))),
        );
        const winners = outcomes.flatMap((outcome, i) => (outcome === 'created' ? [`writer ${i}`] : []));
        if (isAtomic()) expect(winners).toHaveLength(1);
        expect(winners).toContain(await content(name));
      }
      expect(await store.createIfAbsent('manifest-0', Buffer.from('later'))).toBe('exists');
    });

    testIfMutable('replaces a version only once, and only while it stands', async () => {
      expect(await store.readVersion('lease')).toBeUndefined();
      const first = await store.replace('lease', Buffer.from('one'), undefined);
      expect(first).toBeDefined();
      expect(await store.replace('lease', Buffer.from('other'), undefined)).toBeUndefined();
      expect((await place.open().readVersion('lease'))?.version).toBe(first);
      const second = await place.open().replace('lease', Buffer.from('two'), first);
      expect(second).toBeDefined();
      expect(await store.replace('lease', Buffer.from('late'), first)).toBeUndefined();
      const found = await store.readVersion('lease');
      expect([Buffer.from(found?.bytes ?? []).toString(), found?.version]).toEqual(['two', second]);
      await store.remove('lease');
      expect(await store.replace('lease', Buffer.from('three'), second)).toBeUndefined();
      expect(await store.readVersion('lease')).toBeUndefined();
    });

    testIfMutable('takes a replacement whose answer got lost for its own when it is tried again', async () => {
      const first = await store.replace('lease', Buffer.from('one'), undefined);
      const second = await place.open().replace('lease', Buffer.from('two'), first);
      expect(second).toBeDefined();
      expect(await store.replace('lease', Buffer.from('two'), first)).toBe(second);
      expect(await content('lease')).toBe('two');
      expect(await store.replace('lease', Buffer.from('another'), first)).toBeUndefined();
    });

    testIfMutable('of twins that replace one version exactly one succeeds, and its bytes stand', async () => {
      let version = await store.replace('lease', Buffer.from('start'), undefined);
      for (let round = 0; round < (isAtomic() ? 5 : 2); round++) {
        const outcomes = await Promise.all(
          Array.from({ length: 6 }, (_, i) => place.open().replace('lease', Buffer.from(`${round}: ${i}`), version)),
        );
        const winners = outcomes.flatMap((outcome, i) => (outcome === undefined ? [] : [`${round}: ${i}`]));
        if (isAtomic()) expect(winners).toHaveLength(1);
        const stands = await content('lease');
        expect(winners).toContain(stands);
        version = outcomes[Number(stands.split(' ')[1])];
      }
    });

    testIfMutable('does not read as a small object what is none', async () => {
      await store.put('large', Buffer.alloc(100_000));
      await expectCode('image', store.readVersion('large'));
    });

    testIfMutable('put replaces, and readers see the old bytes or the new', async () => {
      await store.put('hint', Buffer.alloc(100_000, 'a'));
      const writing = new AbortController();
      const watch = (async () => {
        while (!writing.signal.aborted) {
          const text = await content('hint');
          expect(text.length).toBe(100_000);
          expect(text === (text[0] ?? '').repeat(100_000)).toBe(true);
        }
      })();
      for (const letter of 'bcdefg') await store.put('hint', Buffer.alloc(100_000, letter));
      writing.abort();
      await watch;
      expect((await content('hint')).startsWith('g')).toBe(true);
    });

    test('reads ranges, exactly', async () => {
      await write('a.ffs', '0123456789');
      const into = Buffer.alloc(4);
      await store.read('a.ffs', 3, into);
      expect(into.toString()).toBe('3456');
      await store.read('a.ffs', 6, into);
      expect(into.toString()).toBe('6789');
      await store.read('a.ffs', 10, Buffer.alloc(0));
      await expectCode('image', store.read('a.ffs', 7, into), 'truncated');
      await expectCode('image', store.read('a.ffs', 100, into), 'truncated');
      await expectCode('not-found', store.read('b.ffs', 0, into), 'b.ffs');
      await expectCode('not-found', store.openReader('b.ffs'), 'b.ffs');
    });

    test('a reader serves many reads at once and ends them after close', async () => {
      const bytes = Buffer.from(Uint8Array.from({ length: 50_000 }, (_, i) => (i * 31) % 251));
      const writer = await store.createWriter('a.ffs');
      await writer.append([bytes]);
      await writer.finish();
      const reader = await store.openReader('a.ffs');
      const reads = Array.from({ length: 40 }, async (_, i) => {
        const into = Buffer.alloc(1000);
        await reader.read(i * 1000, into);
        expect(into.equals(bytes.subarray(i * 1000, (i + 1) * 1000))).toBe(true);
      });
      reader.close();
      reader.close();
      await Promise.all(reads);
      await expectCode('aborted', reader.read(0, Buffer.alloc(1)));
    });

    testIfMutable('lists by prefix, in order, with sizes and times', async () => {
      const beforeMs = Date.now() - 2000;
      for (const name of ['b-2', 'a-10', 'b-1', 'a-9']) await store.put(name, Buffer.from(name));
      expect(await names('')).toEqual(['a-10', 'a-9', 'b-1', 'b-2']);
      expect(await names('b')).toEqual(['b-1', 'b-2']);
      expect(await names('c')).toEqual([]);
      for (const object of await store.list('a-')) {
        expect(object.sizeBytes).toBe(object.name.length);
        expect(object.modifiedAtMs).toBeGreaterThan(beforeMs);
        expect(object.modifiedAtMs).toBeLessThan(Date.now() + 2000);
      }
    });

    testIfMutable('removes, idempotently', async () => {
      await store.put('a', Buffer.from('x'));
      await store.remove('a');
      await store.remove('a');
      expect(await store.size('a')).toBeUndefined();
    });

    testIfMutable('sweeps what a killed writer left, when it is meant and idle', async () => {
      const writer = await store.createWriter('dead-1.ffs');
      // Larger than what a store of objects keeps in memory before it begins an upload.
      await writer.append([Buffer.alloc(20 << 20, 'half')]);
      if (place.datesUploads !== false) expect(await place.open().sweepUnfinished(() => true, 3600_000)).toBe(0);
      expect(await place.open().sweepUnfinished((name) => name === 'other', 0)).toBe(0);
      const swept = place.listsUnfinished === false ? 0 : 1;
      expect(await place.open().sweepUnfinished((name) => name === 'dead-1.ffs', 0)).toBe(swept);
      await writer.abort();
    });

    test.each(['', '.hidden', '..', 'a/b', 'a b', 'ä', 'a\0', 'x'.repeat(201), 'a\n'])('refuses the name %j', (name) =>
      expectCode('internal', (async () => store.createWriter(name))()),
    );

    if (isWriteOnce) {
      test('says that it can neither replace nor remove', async () => {
        expect(store.writeOnce?.objectBytes).toBeGreaterThan(0);
        await store.createIfAbsent('a', Buffer.from('x'));
        await expectCode('unsupported', store.put('a', Buffer.from('y')), 'a');
        await expectCode('unsupported', store.remove('a'), 'a');
        await expectCode('unsupported', store.readVersion('a'), 'a');
        await expectCode('unsupported', store.replace('a', Buffer.from('y'), undefined), 'a');
        expect(await content('a')).toBe('x');
      });

      test('lists the newest by prefix, and those before it by number', async () => {
        for (const number of [2, 3, 4]) await store.createIfAbsent(`manifest-0${number}.json`, Buffer.from('x'));
        await write('p-1.ffs', 'one');
        await write('p-2.ffs', 'three');
        expect(await names('manifest-')).toEqual(['manifest-02.json', 'manifest-03.json', 'manifest-04.json']);
        expect(await place.open().list('p-')).toEqual([
          { name: 'p-1.ffs', sizeBytes: 3, modifiedAtMs: 0 },
          { name: 'p-2.ffs', sizeBytes: 5, modifiedAtMs: 0 },
        ]);
        expect(await names('c')).toEqual([]);
      });
    } else {
      test('can replace and remove', () => {
        expect(store.writeOnce).toBeUndefined();
      });
    }

    test('says whether twins are kept apart', async () => {
      expect(await place.open().prepare()).toEqual({ fencing: isAtomic() ? 'atomic' : 'best-effort' });
    });

    test('its url opens it again', () => {
      expect(store.url).toBe(place.open().url);
    });
  });
}

export async function expectCode(code: ErrorCode, action: Promise<unknown>, text = ''): Promise<FastFreezeError> {
  const error = await action.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof FastFreezeError)) throw new Error(`expected a FastFreezeError, got ${String(error)}`);
  expect(error.code).toBe(code);
  expect(error.message).toContain(text);
  return error;
}
