// SPDX-License-Identifier: Apache-2.0
// OpenStack Swift as S3: it verifies signatures and checksums, and has no conditional writes.
import { createHash, randomBytes } from 'node:crypto';
import { statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { createS3Client } from '../../src/store/s3/s3-client.js';
import { readS3Settings } from '../../src/store/s3/s3-settings.js';
import { openStore } from '../../src/store/store.js';
import { withBed, type Bed } from '../support/bed.js';
import type { Job } from '../support/job.js';
import { checkLines } from '../support/lines.js';
import type { S3Server } from '../support/moto.js';
import { ended } from '../support/place.js';
import { FULL } from '../support/random.js';
import { fastfreeze, fixture, PYTHON } from '../support/stage.js';
import { hasSwift, startSwift, SWIFT_START_MS } from '../support/swift.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { describeStore, expectCode } from '../unit/store/conformance.js';

const MB = 1 << 20;
/** For each step of the job with much memory. */
const LARGE_MS = FULL ? 400_000 : 60_000;

// A job takes seconds; on a loaded machine, many.
jest.setTimeout(120_000);

let server: S3Server;
let proxy: TcpProxy;
const saved = { ...process.env };
let places = 0;
const newUrl = (): string => `s3://swift/place ${places++} ä%41+&/job`;
/** Through the proxy. */
const environment = (): Record<string, string> => ({ ...server.env, AWS_ENDPOINT_URL_S3: proxy.url });

if (hasSwift) {
  beforeAll(async () => {
    server = await startSwift();
    proxy = await TcpProxy.start(server.url);
    Object.assign(process.env, server.env);
    await server.makeBucket('swift');
  }, SWIFT_START_MS);

  afterAll(async () => {
    process.env = saved;
    proxy.stop();
    await server.stop();
  }, 60_000);

  describeStore('s3:', () => {
    const url = newUrl();
    return { open: () => openStore(url), isAtomic: false };
  });
  describe('bits that flip on their way', flippedBits);
  describe('what is set wrong', wrongSettings);
  describe('a job', jobs);
} else test.skip('S3 against Swift', () => undefined);

function flippedBits(): void {
  const body = (): Buffer => randomBytes(8 * MB);
  const always = { signal: new AbortController().signal };
  const through = async <T>(action: () => Promise<T>): Promise<T> => {
    process.env['AWS_ENDPOINT_URL_S3'] = proxy.url;
    try {
      return await action();
    } finally {
      process.env['AWS_ENDPOINT_URL_S3'] = server.url;
    }
  };

  test('are seen by the service: the request is refused, and may be repeated', async () => {
    await through(async () => {
      const client = createS3Client({ bucket: 'swift', prefix: 'flipped/' }, readS3Settings(process.env));
      proxy.trap('up', 3 * MB, 'flip');
      const refused = await expectCode('store', client.put('a', body(), { ...always, ifAbsent: false }), 'changed on');
      expect(refused.passing).toBe(true);
      const upload = await client.beginUpload('b', always);
      const part = { number: 1, offset: 0, isLast: false };
      proxy.trap('up', 3 * MB, 'flip');
      expect((await expectCode('store', client.putPart(upload, part, [body()], always), 'changed on')).passing).toBe(
        true,
      );
      await client.abortUpload(upload, always);
      expect(await client.list('', always)).toEqual([]);
    });
  });

  test('are no failure of an upload, and not in its object', async () => {
    const [url, bytes] = [newUrl(), randomBytes(20 * MB)];
    await through(async () => {
      const writer = await openStore(url).createWriter('a.ffs');
      proxy.trap('up', 12 * MB, 'flip');
      await writer.append([bytes]);
      await writer.finish();
      expect(proxy.armed).toBe(false);
    });
    const found = Buffer.alloc(bytes.length);
    await openStore(url).read('a.ffs', 0, found);
    expect(found.equals(bytes)).toBe(true);
  });
}

function wrongSettings(): void {
  test.each([
    ['a wrong secret', 'swift', { AWS_SECRET_ACCESS_KEY: 'wrong' }, /refuses the signature/, /AWS_SECRET_ACCESS_KEY/],
    ['an unknown key', 'swift', { AWS_ACCESS_KEY_ID: 'nobody' }, /refuses the signature/, /AWS_ACCESS_KEY_ID/],
    ['a wrong region', 'swift', { AWS_REGION: 'eu-west-1' }, /another region, us-east-1/, /AWS_REGION=us-east-1/],
    ['a bucket that does not exist', 'none', {}, /there is no bucket none/, /aws s3 mb s3:\/\/none/],
  ])('%s: one line of cause, one of remedy', async (_what, bucket, settings, cause, remedy) => {
    await withBed('root', async (bed) => {
      const env = { ...server.env, ...settings };
      const url = `s3://${bucket}/wrong/job`;
      const place = await bed.place();
      const listed = await place.fastfreeze(['list', url], { env });
      expect([listed.code, listed.stdout]).toEqual([170, '']);
      expect(listed.stderr).toMatch(/^Error: .+\nTry: .+\n$/);
      const run = await place.fastfreeze(['run', '-i', url, '--', 'echo', 'started'], { env });
      expect([run.code, run.stdout]).toEqual([171, '']);
      expect(run.stderr).toMatch(/^Error: .+\nTry: .+\nNothing was started\..+\n$/);
      for (const { stderr } of [listed, run]) {
        expect(stderr).toMatch(new RegExp(`^Error: .*${cause.source}`));
        expect(stderr).toMatch(new RegExp(`^Try: .*${remedy.source}`, 'm'));
      }
    });
  });

  // The service allows 15 minutes.
  test.each([-86_400, 86_400])('a clock that is off by %i s: requests are dated by the service', async (skewS) => {
    await withBed('root', async (bed) => {
      const [url, place] = [newUrl(), await bed.place()];
      const NODE_OPTIONS = `--import ${fixture('skewed-clock.mjs')}`;
      const env = { ...server.env, NODE_OPTIONS, FF_TEST_SKEW_S: String(skewS) };
      const job = bed.run(place, ['-i', url], ['true'], { env });
      expect(await job.ends()).toMatchObject({ code: 0 });
      expect(job.stderr).not.toMatch(/clock|will fail|could not/);
      const { code, stdout, stderr } = await place.fastfreeze(['list', '--json', url], { env });
      expect([code, stderr]).toEqual([0, '']);
      const listed = JSON.parse(stdout) as { jobs: { generations: { createdAt: string }[] }[] };
      // So the clock was really off.
      const createdAtMs = Date.parse(listed.jobs[0]?.generations[0]?.createdAt ?? '');
      expect(Math.abs(createdAtMs - Date.now() - skewS * 1000)).toBeLessThan(600_000);
    });
  });
}

function jobs(): void {
  const run = async (bed: Bed, url: string, command: readonly string[]): Promise<Job> =>
    bed.run(await bed.place({ clockOffsetS: places * 5_000 }), ['--image-url', url], command, { env: environment() });

  test('as a normal user, continues elsewhere exactly, and bits flip meanwhile', async () => {
    await withBed('user', async (bed) => {
      const [url, stopFile] = [newUrl(), bed.path('stop')];
      const command = [PYTHON, fixture('memory.py'), stopFile, '24'];
      const first = await run(bed, url, command);
      await first.ready('scratch');
      expect(first.stderr).toMatch(/Warning: .*has no conditional writes: fencing is best effort/);
      await first.progresses(2);
      proxy.trap('up', 6 * MB, 'flip');
      await first.freeze();
      expect(proxy.armed).toBe(false);
      expect(await first.place.fastfreeze(['verify', url], { env: environment() })).toMatchObject({ code: 0 });

      const second = await run(bed, url, command);
      await second.ready('restored');
      await second.progresses(2);
      writeFileSync(stopFile, '');
      expect(await second.ends()).toMatchObject({ code: 0 });
      checkLines(first.stdout + second.stdout);
      // Nothing half-done is left.
      expect(await openStore(url).sweepUnfinished(() => true, 0)).toBe(0);
    });
  });

  const megabytes = FULL ? 2048 : 32;
  test(
    `as root, of ${megabytes} MiB that cannot be compressed has the same SHA-256 afterwards`,
    async () => {
      const { bavail, bsize } = statfsSync(tmpdir());
      if (bavail * bsize < 3 * megabytes * MB) throw new Error(`too little space in ${tmpdir()} for Swift's objects`);
      await withBed('root', async (bed) => {
        const [url, stopFile, seed] = [newUrl(), bed.path('stop'), randomBytes(8).toString('hex')];
        const command = [PYTHON, fixture('large.py'), stopFile, String(megabytes), seed];
        const first = await run(bed, url, command);
        await first.prints(/holding/, LARGE_MS);
        const asked = first.place.start([...fastfreeze(), 'checkpoint']);
        expect(await ended(asked, 'the checkpoint', () => first.report(), LARGE_MS)).toBe(0);
        expect(await first.ends()).toMatchObject({ code: 137 });

        const second = await run(bed, url, command);
        await second.ready('restored', LARGE_MS);
        writeFileSync(stopFile, '');
        expect(await second.ends(LARGE_MS)).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout);
        const sums = [first, second].map((job) => /sha256 ([0-9a-f]{64})/.exec(job.stdout)?.[1]);
        expect(sums).toEqual([sumOf(seed, megabytes), sumOf(seed, megabytes)]);
      });
    },
    4 * LARGE_MS,
  );
}

/** What large.py has in its memory. */
function sumOf(seed: string, megabytes: number): string {
  const sum = createHash('sha256');
  for (let i = 0; i < megabytes; i += 1) {
    sum.update(createHash('shake128', { outputLength: MB }).update(`${seed} ${i}`).digest());
  }
  return sum.digest('hex');
}
