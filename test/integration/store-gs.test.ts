// SPDX-License-Identifier: Apache-2.0
// The Google Cloud Storage store by the real SDK against the strict fake.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { createGsClient } from '../../src/store/gs/gs-client.js';
import { readGsSettings } from '../../src/store/gs/gs-settings.js';
import type { ObjectClient } from '../../src/store/object/object-client.js';
import { openStore } from '../../src/store/store.js';
import { GcsFake, type Fault, type SeenRequest } from '../support/gcs-fake.js';
import { describeStore, expectCode } from '../unit/store/conformance.js';

jest.setTimeout(60_000);

const MIB = 1 << 20;
const PART = 8 * MIB;

let fake: GcsFake;
const saved = { ...process.env };
let places = 0;

beforeAll(async () => {
  fake = await GcsFake.start();
  Object.assign(process.env, fake.env);
  fake.makeBucket('conformance');
  fake.makeBucket('theirs', { requesterPays: true });
});

beforeEach(() => {
  fake.requests.length = 0;
});

afterEach(() => {
  fake.fault = () => undefined;
  fake.pageSize = 1000;
  fake.check();
});

afterAll(async () => {
  process.env = saved;
  await fake.stop();
});

describeStore('gs:', () => {
  const url = `gs://conformance/place ${places++} ä%41+&/job`;
  return { open: () => openStore(url), listsUnfinished: false };
});

describe('an upload', () => {
  test('in parts arrives whole, in order, each part but the last full', async () => {
    const { bytes } = await uploads(2 * PART + 5, []);
    const ranges = sent().map(({ headers }) => headers['content-range']);
    expect(ranges).toEqual([
      `bytes 0-${PART - 1}/*`,
      `bytes ${PART}-${2 * PART - 1}/*`,
      `bytes ${2 * PART}-${bytes.length - 1}/${bytes.length}`,
    ]);
  });

  test.each<[string, readonly [number, Fault][], readonly string[]]>([
    ['reset before the first part', [[1, { kind: 'reset' }]], ['part', 'query', 'part', 'part']],
    ['whose first answer is lost', [[1, { kind: 'lose-answer' }]], ['part', 'query', 'part']],
    ['whose last answer is lost', [[2, { kind: 'lose-answer' }]], ['part', 'part', 'query']],
    ['that is told 503', [[2, { kind: 'answer', status: 503 }]], ['part', 'part', 'query', 'part']],
    ['of which little is kept', [[1, { kind: 'keep', bytes: 256 << 10 }]], ['part', 'part', 'part']],
    ['of which nothing is kept', [[2, { kind: 'keep', bytes: 0 }]], ['part', 'part', 'part']],
    [
      'that is kept in pieces and loses answers',
      [
        [1, { kind: 'keep', bytes: MIB }],
        [2, { kind: 'lose-answer' }],
        [4, { kind: 'keep', bytes: 3 }],
        [5, { kind: 'reset' }],
      ],
      ['part', 'part', 'query', 'part', 'part', 'query', 'part'],
    ],
  ])('%s is resumed where the service is', async (_, faults, kinds) => {
    await uploads(PART + 1000, faults);
    expect(sent().map(kindOf)).toEqual(kinds);
  });

  test('that is called off leaves neither object nor session, at once', async () => {
    const store = openStore(`gs://conformance/off-${places++}/job`);
    const writer = await store.createWriter('a.ffs');
    fake.fault = ({ method }) => (method === 'PUT' ? { kind: 'keep', bytes: 0 } : undefined);
    await writer.append([Buffer.alloc(PART + 1)]);
    expect(fake.openSessions).toBe(1);
    await writer.abort();
    expect(fake.openSessions).toBe(0);
    expect(await store.size('a.ffs')).toBeUndefined();
  });

  test('is called off twice, and after it is finished, without an error', async () => {
    const client = aClient();
    const call = { signal: new AbortController().signal };
    const upload = await client.beginUpload('a', call);
    await client.abortUpload(upload, call);
    await client.abortUpload(upload, call);
    await expectCode('store', client.putPart(upload, { number: 1, offset: 0, isLast: true }, [Buffer.from('x')], call));
    const finished = await client.beginUpload('b', call);
    await client.putPart(finished, { number: 1, offset: 0, isLast: true }, [Buffer.from('x')], call);
    await client.abortUpload(finished, call);
    expect(await client.head('b', call)).toMatchObject({ sizeBytes: 1 });
  });

  test('whose session is lost says so, without its secret name', async () => {
    const client = aClient();
    const call = { signal: new AbortController().signal };
    const upload = await client.beginUpload('a', call);
    const lost = { ...upload, id: upload.id.replace(/upload_id=.{8}/u, 'upload_id=00000000') };
    const part = { number: 1, offset: 0, isLast: true };
    const error = await expectCode('not-found', client.putPart(lost, part, [Buffer.from('x')], call), 'No such upload');
    expect(error.passing).toBe(false);
    expect(error.message).not.toContain('00000000');
    await client.abortUpload(upload, call);
  });

  test('ends at once when the caller ends it', async () => {
    const client = aClient();
    const life = new AbortController();
    const upload = await client.beginUpload('a', { signal: life.signal });
    fake.fault = () => {
      life.abort();
      return undefined;
    };
    const part = { number: 1, offset: 0, isLast: false };
    await expectCode('aborted', client.putPart(upload, part, [Buffer.alloc(PART)], { signal: life.signal }));
    await client.abortUpload(upload, { signal: new AbortController().signal });
  });

  test('of other bytes than were sent is refused by the service, whole or in parts', async () => {
    const client = aClient();
    const call = { signal: new AbortController().signal };
    fake.fault = ({ method }) => (method === 'GET' ? undefined : { kind: 'flip' });
    const error = await expectCode(
      'store',
      client.put('a', Buffer.from('bytes'), { ...call, ifAbsent: false }),
      'changed',
    );
    expect(error.passing).toBe(true);
    const upload = await client.beginUpload('b', call);
    await client.putPart(upload, { number: 1, offset: 0, isLast: false }, [Buffer.alloc(MIB)], call);
    await expectCode(
      'store',
      client.putPart(upload, { number: 2, offset: MIB, isLast: true }, [Buffer.from('end')], call),
      'changed',
    );
    expect(await client.list('', call)).toEqual([]);
    await client.abortUpload(upload, call);
  });
});

describe('a condition', () => {
  test('that does not hold is a conflict, and the object stays as it was', async () => {
    const client = aClient();
    const call = { signal: new AbortController().signal };
    await client.put('a', Buffer.from('first'), { ...call, ifAbsent: true });
    const error = await expectCode('conflict', client.put('a', Buffer.from('second'), { ...call, ifAbsent: true }));
    expect(error.passing).toBe(false);
    const into = Buffer.alloc(10);
    expect(await client.get('a', 0, into, call)).toBe(5);
    await client.put('a', Buffer.from('third'), { ...call, ifAbsent: false });
  });

  test('is kept when the answer of the winner is lost', async () => {
    const store = openStore(`gs://conformance/lost-${places++}/job`);
    await store.prepare();
    once(({ method }) => method === 'POST', { kind: 'lose-answer' });
    expect(await store.createIfAbsent('manifest', Buffer.from('mine'))).toBe('created');
    expect(await store.createIfAbsent('manifest', Buffer.from('other'))).toBe('exists');
  });

  test('is known to be kept', async () => {
    expect(await openStore(`gs://conformance/fence-${places++}/job`).prepare()).toEqual({ fencing: 'atomic' });
  });
});

describe('a read', () => {
  test.each<[string, Fault]>([
    ['ends early', { kind: 'cut', afterBytes: 70_000 }],
    ['is reset', { kind: 'reset' }],
    ['is told 503', { kind: 'answer', status: 503 }],
    ['is told 429', { kind: 'answer', status: 429 }],
    ['is told 403 rateLimitExceeded', { kind: 'answer', status: 403, reason: 'rateLimitExceeded' }],
  ])('that %s is tried again', async (_, fault) => {
    const store = openStore(`gs://conformance/read-${places++}/job`);
    const bytes = randomBytes(MIB);
    await store.put('a', bytes);
    once(({ query }) => query['alt'] === 'media', fault);
    const into = Buffer.alloc(MIB - 10);
    const startMs = performance.now();
    await store.read('a', 10, into);
    expect(into.equals(bytes.subarray(10))).toBe(true);
    // Not by a timeout: what broke off is noticed when it does.
    expect(performance.now() - startMs).toBeLessThan(20_000);
  });

  test('of the end, and beyond it, gives what there is', async () => {
    const client = aClient();
    const call = { signal: new AbortController().signal };
    await client.put('a', Buffer.from('0123456789'), { ...call, ifAbsent: false });
    const into = Buffer.alloc(4);
    expect(await client.get('a', 8, into, call)).toBe(2);
    expect(await client.get('a', 10, into, call)).toBe(0);
    await expectCode('not-found', client.get('b', 0, into, call), 'No such object');
  });
});

describe('a list', () => {
  test('of many pages is whole, and leaves out folders below', async () => {
    const store = openStore(`gs://conformance/list-${places++}/job`);
    const below = openStore(`${store.url}/below`);
    const beside = openStore(`${store.url}-2`);
    for (const one of [below, beside]) await one.put('x', Buffer.from('x'));
    const names = Array.from({ length: 11 }, (_, i) => `n-${String(i).padStart(2, '0')}`);
    for (const name of names) await store.put(name, Buffer.from(name));
    fake.pageSize = 3;
    expect((await store.list('')).map((one) => one.name)).toEqual(names);
    expect((await store.list('n-1')).map((one) => one.name)).toEqual(['n-10']);
    expect(await below.list('n')).toEqual([]);
  });
});

describe('settings', () => {
  const keyName = 'projects/p/locations/l/keyRings/r/cryptoKeys/k';

  test('reach every object, by either kind of upload', async () => {
    const env = { FF_GS_STORAGE_CLASS: 'NEARLINE', FF_GS_KMS_KEY: keyName, FF_GS_METADATA: 'team=a,job=b c' };
    const client = createGsClient({ bucket: 'conformance', prefix: `set-${places++}/` }, readGsSettings(env));
    const call = { signal: new AbortController().signal };
    await client.put('a', Buffer.from('a'), { ...call, ifAbsent: false });
    const upload = await client.beginUpload('b', call);
    const part = await client.putPart(upload, { number: 1, offset: 0, isLast: true }, [Buffer.from('b')], call);
    await client.completeUpload(upload, [part], call);
    for (const name of ['a', 'b']) {
      expect(fake.object('conformance', `set-${places - 1}/${name}`)).toMatchObject({
        storageClass: 'NEARLINE',
        kmsKeyName: keyName,
        metadata: { team: 'a', job: 'b c' },
        contentType: 'application/octet-stream',
      });
    }
  });

  test('name who pays, in every request; without, the error says what to set', async () => {
    const call = { signal: new AbortController().signal };
    const place = { bucket: 'theirs', prefix: 'job/' };
    const poor = createGsClient(place, readGsSettings({}));
    const error = await expectCode('store', poor.put('a', Buffer.from('a'), { ...call, ifAbsent: false }), 'pay');
    expect(error.hint).toContain('FF_GS_USER_PROJECT');
    await expectCode('store', poor.head('a', call), 'pay');
    fake.requests.length = 0;
    const rich = createGsClient(place, readGsSettings({ FF_GS_USER_PROJECT: 'payer-1' }));
    await rich.put('a', Buffer.from('a'), { ...call, ifAbsent: true });
    await rich.get('a', 0, Buffer.alloc(1), call);
    await rich.head('a', call);
    await rich.list('', call);
    const upload = await rich.beginUpload('b', call);
    await rich.abortUpload(upload, call);
    await rich.remove('a', call);
    const asked = fake.requests.filter(({ query }) => query['upload_id'] === undefined);
    expect(asked).toHaveLength(6);
    expect(asked.map(({ query }) => query['userProject'])).toEqual(asked.map(() => 'payer-1'));
  });
});

test('a bucket that is not there is named, with a remedy', async () => {
  const client = createGsClient({ bucket: 'nowhere', prefix: 'job/' }, readGsSettings({}));
  const call = { signal: new AbortController().signal };
  const actions = [
    () => client.put('a', Buffer.from('a'), { ...call, ifAbsent: false }),
    () => client.get('a', 0, Buffer.alloc(1), call),
    () => client.head('a', call),
    () => client.list('', call),
    () => client.beginUpload('a', call),
  ];
  for (const action of actions) {
    const error = await expectCode('not-found', action(), 'there is no bucket nowhere');
    expect(error.hint).toContain('gs://nowhere');
  }
});

test('a service that nobody runs is a passing failure', async () => {
  const gone = await GcsFake.start();
  await gone.stop();
  process.env['STORAGE_EMULATOR_HOST'] = gone.url;
  const client = aClient();
  process.env['STORAGE_EMULATOR_HOST'] = fake.url;
  const call = { signal: new AbortController().signal };
  const actions = [
    () => client.put('a', Buffer.from('a'), { ...call, ifAbsent: false }),
    () => client.get('a', 0, Buffer.alloc(1), call),
    () => client.list('', call),
    () => client.beginUpload('a', call),
  ];
  for (const action of actions) expect((await expectCode('store', action(), 'ECONNREFUSED')).passing).toBe(true);
});

function aClient(): ObjectClient {
  return createGsClient({ bucket: 'conformance', prefix: `client-${places++}/` }, readGsSettings({}));
}

/** The nth PUT of the upload meets the fault. Proves that what arrived is what was sent. */
async function uploads(sizeBytes: number, faults: readonly (readonly [number, Fault])[]): Promise<{ bytes: Buffer }> {
  const store = openStore(`gs://conformance/up-${places++}/job`);
  let puts = 0;
  fake.fault = ({ method }) => (method === 'PUT' ? new Map(faults).get(++puts) : undefined);
  const bytes = randomBytes(sizeBytes);
  const writer = await store.createWriter('a.ffs');
  await writer.append([bytes.subarray(0, 1000), bytes.subarray(1000)]);
  await writer.finish();
  const stored = fake.object('conformance', `up-${places - 1}/job/a.ffs`);
  expect(stored?.bytes.equals(bytes)).toBe(true);
  expect(fake.openSessions).toBe(0);
  return { bytes };
}

const sent = (): SeenRequest[] => fake.requests.filter(({ method }) => method === 'PUT');

const kindOf = ({ headers }: SeenRequest): string => (headers['content-range'] === 'bytes */*' ? 'query' : 'part');

/** The first request that fits meets the fault. */
function once(fits: (request: SeenRequest) => boolean, fault: Fault): void {
  let done = false;
  fake.fault = (request) => {
    if (done || !fits(request)) return undefined;
    done = true;
    return fault;
  };
}
