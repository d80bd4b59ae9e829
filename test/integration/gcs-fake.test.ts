// SPDX-License-Identifier: Apache-2.0
// The fake of Google Cloud Storage is itself held to what the service does: by plain requests, and by the SDK's own uploads.
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { IdempotencyStrategy, Storage } from '@google-cloud/storage';
import { createHash, randomBytes } from 'node:crypto';
import { crc32c, encodeCrc32c } from '../support/crc32c.js';
import { GcsFake } from '../support/gcs-fake.js';
import { messageOf } from '../support/until.js';

jest.setTimeout(60_000);

const KIB256 = 256 << 10;
let fake: GcsFake;
const saved = { ...process.env };

beforeEach(async () => {
  fake = await GcsFake.start();
  fake.makeBucket('b');
});

afterEach(async () => {
  process.env = { ...saved };
  await fake.stop();
});

const ask = (path: string, options: RequestInit = {}): Promise<Response> => fetch(`${fake.url}${path}`, options);
const put = (url: string, range: string, body?: Buffer, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(url, {
    method: 'PUT',
    headers: { 'content-range': range, ...headers },
    ...(body === undefined ? {} : { body }),
  });

async function begin(name: string, more = '', metadata: object = {}): Promise<string> {
  const path = `/upload/storage/v1/b/b/o?uploadType=resumable&name=${name}${more}`;
  const answer = await ask(path, { method: 'POST', body: JSON.stringify(metadata) });
  expect(answer.status).toBe(200);
  return answer.headers.get('location') ?? '';
}

async function make(name: string, bytes: Buffer | string, more = '', metadata: object = {}): Promise<Response> {
  const head = `--x\r\ncontent-type: application/json\r\n\r\n${JSON.stringify({ name, ...metadata })}\r\n--x\r\n\r\n`;
  return await ask(`/upload/storage/v1/b/b/o?uploadType=multipart${more}`, {
    method: 'POST',
    headers: { 'content-type': 'multipart/related; boundary=x' },
    body: Buffer.concat([Buffer.from(head), Buffer.from(bytes), Buffer.from('\r\n--x--')]),
  });
}

test('CRC-32C is that of the standard', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  expect(crc32c(Buffer.from('6789'), crc32c(Buffer.from('12345')))).toBe(0xe3069283);
});

test('a wrong checksum is refused, right ones are not', async () => {
  const bytes = randomBytes(1000);
  const md5Hash = createHash('md5').update(bytes).digest('base64');
  const sum = encodeCrc32c(crc32c(bytes));
  expect((await make('a', bytes, '', { md5Hash: createHash('md5').digest('base64') })).status).toBe(400);
  expect((await make('a', bytes, '', { crc32c: 'AAAAAA==' })).status).toBe(400);
  expect(fake.names('b')).toEqual([]);
  const answer = await make('a', bytes, '', { md5Hash, crc32c: sum });
  expect(await answer.json()).toMatchObject({ name: 'a', size: '1000', md5Hash, crc32c: sum });
  const session = await begin('c');
  expect((await put(session, 'bytes 0-999/1000', bytes, { 'x-goog-hash': 'crc32c=AAAAAA==' })).status).toBe(400);
  expect(fake.names('b')).toEqual(['a']);
});

test('a resumable upload: chunks, status, overlap, end', async () => {
  const bytes = randomBytes(2 * KIB256 + 10);
  const session = await begin('a');
  const status = await put(session, 'bytes */*');
  expect([status.status, status.headers.get('range')]).toEqual([308, null]);
  expect((await put(session, 'bytes 0-99/*', bytes.subarray(0, 100))).status).toBe(400);
  const first = await put(session, `bytes 0-${KIB256 - 1}/*`, bytes.subarray(0, KIB256));
  expect([first.status, first.headers.get('range')]).toEqual([308, `bytes=0-${KIB256 - 1}`]);
  expect((await put(session, `bytes ${2 * KIB256}-${bytes.length - 1}/*`, bytes.subarray(2 * KIB256))).status).toBe(
    503,
  );
  expect(fake.names('b')).toEqual([]);
  // From the start again: what is held already is skipped.
  const rest = await put(session, `bytes 0-${bytes.length - 1}/${bytes.length}`, bytes);
  expect(rest.status).toBe(200);
  expect(fake.object('b', 'a')?.bytes.equals(bytes)).toBe(true);
  for (const range of ['bytes */*', `bytes */${bytes.length}`]) {
    const done = await put(session, range);
    expect([done.status, ((await done.json()) as { size: string }).size]).toEqual([200, String(bytes.length)]);
  }
});

test('a resumable upload in one go, and one that is called off', async () => {
  const whole = await begin('a');
  expect((await put(whole, 'bytes 0-*/*', Buffer.from('all of it'))).status).toBe(200);
  expect(fake.object('b', 'a')?.bytes.toString()).toBe('all of it');
  const off = await begin('c');
  expect((await fetch(off, { method: 'DELETE' })).status).toBe(499);
  expect((await put(off, 'bytes 0-0/1', Buffer.from('x'))).status).toBe(499);
  expect((await put(off.replace(/upload_id=./u, 'upload_id=-'), 'bytes */*')).status).toBe(404);
});

test('conditions: 412 on all kinds of requests, when a session begins and when it ends', async () => {
  const first = (await (await make('a', 'one')).json()) as { generation: string; metageneration: string };
  const second = (await (await make('a', 'two')).json()) as { generation: string };
  expect(BigInt(second.generation)).toBeGreaterThan(BigInt(first.generation));
  expect(first.metageneration).toBe('1');
  const old = `ifGenerationMatch=${first.generation}`;
  const current = `ifGenerationNotMatch=${second.generation}`;
  for (const condition of [old, current, 'ifMetagenerationMatch=2', 'ifGenerationMatch=0']) {
    for (const method of ['GET', 'DELETE']) {
      const answer = await ask(`/b/b/o/a?${condition}`, { method });
      expect(answer.status).toBe(412);
      expect(await answer.json()).toMatchObject({ error: { code: 412, errors: [{ reason: 'conditionNotMet' }] } });
    }
    expect((await make('a', 'three', `&${condition}`)).status).toBe(412);
    const path = `/upload/storage/v1/b/b/o?uploadType=resumable&name=a&${condition}`;
    expect((await ask(path, { method: 'POST' })).status).toBe(412);
  }
  const late = await begin('c', '&ifGenerationMatch=0');
  await make('c', 'somebody else');
  expect((await put(late, 'bytes 0-0/1', Buffer.from('x'))).status).toBe(412);
  expect(fake.object('b', 'c')?.bytes.toString()).toBe('somebody else');
});

test.each([
  ['bytes=2-4', 206, 'bytes 2-4/10', '234'],
  ['bytes=8-99', 206, 'bytes 8-9/10', '89'],
  ['bytes=7-', 206, 'bytes 7-9/10', '789'],
  ['bytes=-3', 206, 'bytes 7-9/10', '789'],
  ['bytes=-30', 206, 'bytes 0-9/10', '0123456789'],
  ['bytes=10-12', 416, null, undefined],
  [undefined, 200, null, '0123456789'],
])('the range %s is answered with %i', async (range, status, contentRange, text) => {
  await make('a', '0123456789');
  const answer = await ask('/b/b/o/a?alt=media', range === undefined ? {} : { headers: { range } });
  expect(answer.status).toBe(status);
  expect(answer.headers.get('content-range')).toBe(contentRange);
  if (text !== undefined) {
    expect(await answer.text()).toBe(text);
    expect(answer.headers.get('x-goog-hash')).toMatch(/^crc32c=.{8},md5=.{24}$/u);
    expect(answer.headers.get('x-goog-stored-content-length')).toBe('10');
    expect(answer.headers.get('x-goog-generation')).toMatch(/^\d+$/u);
  }
});

test('lists pages of names and folders, with and without the prefix of the API', async () => {
  for (const name of ['p/a', 'p/b/1', 'p/b/2', 'p/c', 'p/d/1', 'q']) await make(name, name);
  for (const api of ['', '/storage/v1']) {
    const items: string[] = [];
    const prefixes: string[] = [];
    let token = '';
    let pages = 0;
    do {
      const page = (await (await ask(`${api}/b/b/o?prefix=p/&delimiter=/&maxResults=2${token}`)).json()) as {
        readonly items?: readonly { readonly name: string; readonly size: unknown }[];
        readonly prefixes?: readonly string[];
        readonly nextPageToken?: string;
      };
      items.push(...(page.items ?? []).map(({ name }) => name));
      prefixes.push(...(page.prefixes ?? []));
      token = page.nextPageToken === undefined ? '' : `&pageToken=${encodeURIComponent(page.nextPageToken)}`;
      pages += 1;
    } while (token !== '');
    expect({ items, prefixes, pages }).toEqual({ items: ['p/a', 'p/c'], prefixes: ['p/b/', 'p/d/'], pages: 2 });
  }
});

test('buckets are made once, and what is not there is 404', async () => {
  const body = JSON.stringify({ name: 'new' });
  expect((await ask('/b?project=p', { method: 'POST', body })).status).toBe(200);
  expect((await ask('/b?project=p', { method: 'POST', body })).status).toBe(409);
  expect((await ask('/b/new')).status).toBe(200);
  expect((await ask('/b/old')).status).toBe(404);
  expect((await ask('/b/b/o/a')).status).toBe(404);
  await make('a', 'x');
  expect((await ask('/b/b/o/a', { method: 'DELETE' })).status).toBe(204);
  expect((await ask('/b/b/o/a', { method: 'DELETE' })).status).toBe(404);
});

test.each([
  ['a request', '/b/b/acl', {}],
  ['a method', '/b/b/o/a', { method: 'PATCH' }],
  ['a parameter', '/b/b/o?projection=full', {}],
  ['a header', '/b/b/o', { headers: { 'x-goog-encryption-key': 'x' } }],
  ['a kind of upload', '/upload/storage/v1/b/b/o?uploadType=media&name=a', { method: 'POST' }],
])('%s that it does not know is 501, and fails the test', async (_, path, options) => {
  expect((await ask(path, options)).status).toBe(501);
  expect(() => fake.check()).toThrow('unknown to the fake');
  fake.violations.length = 0;
});

test.each(['STORAGE_EMULATOR_HOST', 'apiEndpoint'])(
  "the SDK's own chunked upload is resumed after a lost answer, by %s",
  async (how) => {
    if (how === 'STORAGE_EMULATOR_HOST') process.env['STORAGE_EMULATOR_HOST'] = fake.url;
    const storage = new Storage({
      ...(how === 'apiEndpoint' ? { apiEndpoint: fake.url } : {}),
      retryOptions: { idempotencyStrategy: IdempotencyStrategy.RetryAlways },
    });
    const file = storage.bucket('b').file('dir/a ä');
    const bytes = randomBytes(3 * KIB256 + 77);
    let puts = 0;
    fake.fault = ({ method }) => (method === 'PUT' && ++puts === 2 ? { kind: 'lose-answer' } : undefined);
    await file.save(bytes, { resumable: true, chunkSize: KIB256 });
    // Four chunks, and the question what is there. (After the last one the SDK would ask too, and take the answer for nothing.)
    expect(puts).toBe(5);
    // A full read, of which the SDK checks the CRC-32C.
    const [read] = await file.download();
    expect(read.equals(bytes)).toBe(true);
    const [found] = await file.getMetadata();
    expect(found).toMatchObject({ size: String(bytes.length), metageneration: '1' });
  },
);

test("the SDK's simple and one-go uploads, and its refusals, in both shapes", async () => {
  process.env['STORAGE_EMULATOR_HOST'] = fake.url;
  const bucket = new Storage({ retryOptions: { autoRetry: false } }).bucket('b');
  await bucket.file('simple').save('simple', { resumable: false });
  await bucket.file('whole').save('whole', { resumable: true });
  for (const resumable of [false, true]) {
    const again = bucket.file('simple').save('x', { resumable, preconditionOpts: { ifGenerationMatch: 0 } });
    const error = (await again.catch((thrown: unknown) => thrown)) as Record<string, unknown>;
    expect(resumable ? error['status'] : error['code']).toBe(412);
  }
  const wrong = bucket.file('wrong').save('x', { resumable: false, metadata: { md5Hash: 'AAAA' } });
  expect(messageOf(await wrong.catch((thrown: unknown) => thrown))).toContain("doesn't match");
  expect(fake.names('b')).toEqual(['simple', 'whole']);
});
