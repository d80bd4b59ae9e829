// SPDX-License-Identifier: Apache-2.0
// What is wrong with a URL or with what lies there: each command says the cause and a remedy, and changes nothing.
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { commitManifest } from '../../src/image/generations.js';
import { buildManifest } from '../../src/image/manifest.js';
import { LEASE_NAME } from '../../src/store/lease/record.js';
import { openStore } from '../../src/store/store.js';
import { withBed } from '../support/bed.js';
import { GcsFake } from '../support/gcs-fake.js';
import { hasMoto, startMoto, type S3Server } from '../support/moto.js';
import type { Answer, Place } from '../support/place.js';
import { freePort } from '../support/ports.js';
import { noise, writeImage } from '../unit/image/support.js';

const FILES = new Map([['pages-1.img', noise(200_000, 1)]]);
const WRITER = { version: '0.1.0', host: 'here', kernel: '6.1', criu: '4.2' };
const saved = { ...process.env };
let fake: GcsFake;
let moto: S3Server | undefined;

beforeAll(async () => {
  fake = await GcsFake.start();
  fake.makeBucket('jobs');
  fake.makeBucket('empty');
  moto = hasMoto ? await startMoto() : undefined;
  for (const bucket of ['jobs', 'empty']) await moto?.makeBucket(bucket);
  Object.assign(process.env, fake.env, moto?.env);
}, 60_000);

afterAll(async () => {
  process.env = saved;
  await moto?.stop();
  await fake.stop();
});

const environment = (): Record<string, string> => ({ ...fake.env, ...moto?.env, FF_STORE_RETRY_S: '1' });

/** Without the lease, which every run of the job writes. */
async function contents(url: string): Promise<string[]> {
  const store = openStore(url);
  const all: string[] = [];
  for (const { name, sizeBytes } of await store.list('')) {
    if (name === LEASE_NAME) continue;
    const bytes = Buffer.alloc(sizeBytes);
    await store.read(name, 0, bytes);
    all.push(`${name} ${createHash('sha256').update(bytes).digest('hex')}`);
  }
  return all;
}

function helpful(answer: Answer, code: number, cause: RegExp): void {
  expect([answer.code, answer.stdout]).toEqual([code, '']);
  expect(answer.stderr).toMatch(/^Error: .+\nTry: .+\n$/);
  expect(answer.stderr).toMatch(cause);
}

if (!hasMoto) test.skip('bad input in S3, against moto', () => undefined);

for (const scheme of hasMoto ? (['s3', 'gs'] as const) : (['gs'] as const)) {
  describe(`in ${scheme}:`, () => {
    const at = async (body: (place: Place, ask: (...words: string[]) => Promise<Answer>) => Promise<void>) => {
      await withBed('root', async (bed) => {
        const place = await bed.place();
        await body(place, (...words) => place.fastfreeze(words, { env: environment() }));
      });
    };

    test('a bucket that does not exist, and one without jobs', async () => {
      await at(async (_place, ask) => {
        const url = `${scheme}://no-such-bucket/job`;
        for (const words of [['list'], ['inspect'], ['verify'], ['prune', '--keep', '1']]) {
          helpful(await ask(...words, url), 170, /there is no bucket no-such-bucket/);
        }
        helpful(await ask('cp', url, `${scheme}://jobs/copy`), 170, /there is no bucket no-such-bucket/);
        helpful(await ask('list', `${scheme}://empty/path`), 170, /nothing is there/);
        helpful(await ask('list', `${scheme}://Jobs`), 2, /is no name of a bucket/);
        expect(await ask('list', `${scheme}://empty`)).toEqual({ code: 0, stdout: 'There is no job.\n', stderr: '' });
      });
    }, 120_000);

    test('names with spaces, % and other scripts are jobs like any, listed, pruned and copied', async () => {
      await at(async (_place, ask) => {
        const urls = ['a b', '100%', '%41', 'ä €', '日本?x=1#y', 'plain'].map((id) => `${scheme}://jobs/names/${id}`);
        for (const url of urls) {
          const store = openStore(url);
          for (const generation of [1, 2]) {
            await commitManifest(store, (await writeImage(store, FILES, { generation })).manifest);
          }
          // The hint is nobody's source.
          await store.put('manifest.json', Buffer.from('nonsense'));
        }
        for (const place of [`${scheme}://jobs/names`, `${scheme}://jobs`]) {
          const { code, stdout, stderr } = await ask('list', '--json', place);
          expect([code, stderr]).toEqual([0, '']);
          const listed = JSON.parse(stdout) as { jobs: { url: string; state: string; generations: unknown[] }[] };
          const found = listed.jobs.filter(({ url }) => url.includes('/names/'));
          expect(found.map(({ url }) => url)).toEqual([...urls].sort());
          for (const { state, generations } of found) expect([state, generations.length]).toEqual(['checkpoint', 2]);
        }
        const pruned = await ask('prune', '--keep', '1', '--json', `${scheme}://jobs/names`);
        expect([pruned.code, pruned.stderr]).toEqual([0, '']);
        const { jobs } = JSON.parse(pruned.stdout) as { jobs: { generations: number[] }[] };
        expect(jobs.map(({ generations }) => generations)).toEqual(urls.map(() => [1]));
        for (const url of urls) expect(await ask('verify', url)).toMatchObject({ code: 0 });
        expect(await ask('cp', urls[3] ?? '', `${scheme}://jobs/copy %20`)).toMatchObject({ code: 0, stderr: '' });
        expect(await ask('verify', `${scheme}://jobs/copy %20`)).toMatchObject({ code: 0 });
      });
    }, 240_000);

    test('manifests that are none of ours, or lead elsewhere, are refused', async () => {
      await at(async (_place, ask) => {
        const good = openStore(`${scheme}://jobs/good`);
        const { manifest } = await writeImage(good, FILES);
        await commitManifest(good, manifest);
        const bytes = Buffer.alloc((await good.size('manifest-00000001.json')) ?? 0);
        await good.read('manifest-00000001.json', 0, bytes);
        const shard = manifest.image?.shards[0]?.name ?? '';
        const named = (name: string): string => {
          const text = bytes.toString().replace(JSON.stringify(shard), JSON.stringify(name));
          const body = text.slice(0, text.lastIndexOf(',\n  "checksum"'));
          return `${body},\n  "checksum": "${createHash('sha256').update(body).digest('hex')}"\n}\n`;
        };
        for (const [content, cause] of [
          ['', /no JSON object/],
          ['<html>', /no JSON object/],
          ['{"schemaVersion": 2, "layers": []}', /another tool wrote it/],
          [named('../../good-1.ffs'), /its field image\.shards must/],
          [named('/etc/passwd-1.ffs'), /its field image\.shards must/],
        ] as const) {
          const url = `${scheme}://jobs/bad`;
          const store = openStore(url);
          await store.put('manifest-00000001.json', Buffer.from(content));
          const before = await contents(url);
          helpful(await ask('inspect', url), 170, cause);
          helpful(await ask('extract', url, '-o', '/nowhere/at/all'), 170, cause);
          helpful(await ask('cp', url, `${scheme}://empty/copy`), 171, cause);
          expect(await ask('verify', url)).toMatchObject({
            code: 171,
            stdout: expect.stringMatching(cause) as unknown,
          });
          const listed = await ask('list', url);
          expect(listed).toMatchObject({ code: 0, stdout: expect.stringMatching(/ damaged, /) as unknown });
          expect(await ask('prune', '--keep', '1', url)).toMatchObject({ code: 170 });
          const run = await ask('run', '-i', url, '--', 'echo', 'started');
          expect([run.code, run.stdout]).toEqual([171, '']);
          expect(run.stderr).toMatch(/^Error: .+\nTry: /m);
          expect(await contents(url)).toEqual(before);
          expect(await contents(`${scheme}://empty/copy`)).toEqual([]);
        }
      });
    }, 240_000);

    test('the record of a finished job has no image, and is shown, verified and copied all the same', async () => {
      await at(async (_place, ask) => {
        const url = `${scheme}://jobs/finished`;
        const finished = { exitCode: 3, signal: null };
        const createdAt = '2026-01-03T00:00:00.000Z';
        const record = buildManifest({ generation: 1, state: 'finished', createdAt, writer: WRITER, finished });
        await commitManifest(openStore(url), record);
        const inspected = await ask('inspect', url);
        expect(inspected).toMatchObject({
          code: 0,
          stdout: expect.stringMatching(/ended +with exit code 3/) as unknown,
        });
        expect(await ask('verify', url)).toMatchObject({
          code: 0,
          stdout: 'Generation 1: ok, the job has finished and there is no image\n',
        });
        expect(await ask('cp', url, `${url} copy`)).toMatchObject({ code: 0, stderr: '' });
        expect(await contents(`${url} copy`)).toEqual(await contents(url));
        helpful(await ask('extract', url, '-o', '/nowhere/at/all'), 170, /only says that the job has finished/);
      });
    }, 120_000);
  });
}

test('a service that is away is waited for with a word, and then the command ends', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const away = `http://127.0.0.1:${await freePort()}`;
    const env = { STORAGE_EMULATOR_HOST: away, FF_STORE_RETRY_S: '12' };
    const answer = await place.fastfreeze(['list', 'gs://jobs/x'], { env });
    expect([answer.code, answer.stdout]).toEqual([170, '']);
    expect(answer.stderr).toMatch(
      /^Waiting: gs:\/\/jobs\/x: .*\(ECONNREFUSED\); trying again for up to \d+ s\nError: .*tries in \d+ s\)\nTry: .*\n$/,
    );
  });
}, 120_000);
