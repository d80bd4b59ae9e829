// SPDX-License-Identifier: Apache-2.0
// Jobs whose images are in S3: they continue elsewhere, and a service that fails costs nothing.
import { writeFileSync } from 'node:fs';
import { GetObjectTaggingCommand, HeadObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { openStore } from '../../src/store/store.js';
import { withBed, type Bed } from '../support/bed.js';
import { startHttpFront, type HttpFront } from '../support/http-front.js';
import { inTurn } from '../support/in-turn.js';
import type { Job } from '../support/job.js';
import { checkLines } from '../support/lines.js';
import { hasMoto, startMoto, type S3Server } from '../support/moto.js';
import type { Answer } from '../support/place.js';
import { signalPid } from '../support/processes.js';
import { fixture, PYTHON } from '../support/stage.js';
import { TcpProxy } from '../support/tcp-proxy.js';

const MB = 1 << 20;

let server: S3Server;
let proxy: TcpProxy;
let front: HttpFront;
const saved = { ...process.env };
let jobs = 0;

if (hasMoto) {
  beforeAll(async () => {
    server = await startMoto();
    front = await startHttpFront(server.url);
    proxy = await TcpProxy.start(front.url);
    Object.assign(process.env, server.env);
    await server.makeBucket('jobs');
  }, 60_000);

  afterEach(async () => {
    front.refuse = () => undefined;
    proxy.delayMs = 0;
    await proxy.accept();
  });

  afterAll(async () => {
    process.env = saved;
    proxy.stop();
    await front.stop();
    await server.stop();
  });
} else test.skip('jobs in S3, against moto', () => undefined);

/** Everything of a job's goes through the proxy; what the tests look at does not. */
function environment(retryS: number): Record<string, string> {
  return { ...server.env, AWS_ENDPOINT_URL_S3: proxy.url, FF_STORE_RETRY_S: String(retryS) };
}

/** A key that needs escaping. */
const newUrl = (): string => `s3://jobs/team ä+%41/job-${++jobs}`;

async function generations(url: string): Promise<string[]> {
  return (await openStore(url).list('manifest-')).map((object) => object.name);
}

function expectHelpfulError(answer: Answer, cause: RegExp): void {
  expect(answer.code).toBe(170);
  expect(answer.stderr).toMatch(/^Error: .+/m);
  expect(answer.stderr).toMatch(/^Try: .+/m);
  expect(answer.stderr).toMatch(cause);
}

/** Nobody's standard error has a word of the SDK's. */
function expectQuiet(...all: Job[]): void {
  for (const job of all) expect(job.stderr).not.toMatch(/NodeVersionSupportWarning|smithy|VIOLATION|Traceback/);
}

async function finish(job: Job, stopFile: string): Promise<void> {
  writeFileSync(stopFile, '');
  expect(await job.ends()).toMatchObject({ code: 0 });
}

if (hasMoto) {
  test('FF_S3_*: objects are encrypted, stored and tagged as they say, and who pays is told', async () => {
    await withBed('user', async (bed) => {
      const payers = new Set<unknown>();
      front.refuse = ({ headers }) => void payers.add(headers['x-amz-request-payer']);
      const env = {
        ...environment(60),
        FF_S3_ADDRESSING: 'path',
        FF_S3_SSE: 'aws:kms',
        FF_S3_SSE_KMS_KEY_ID: 'ours',
        FF_S3_STORAGE_CLASS: 'STANDARD_IA',
        FF_S3_TAGS: 'team=a,job=b c',
        FF_S3_REQUEST_PAYER: 'requester',
      };
      const command = ['sh', fixture('shell-loop.sh'), bed.path('stop')];
      const job = bed.run(await bed.place(), ['--image-url', 's3://jobs/settings'], command, { env });
      await job.progresses(2);
      await job.freeze();
      expect(payers).toEqual(new Set(['requester']));
      const objects = (await openStore('s3://jobs/settings').list('')).filter(({ name }) => name !== 'lease.json');
      expect(objects.length).toBeGreaterThan(3);
      const client = new S3Client({ forcePathStyle: true });
      for (const { name } of objects) {
        const object = { Bucket: 'jobs', Key: `settings/${name}` };
        const { ServerSideEncryption, SSEKMSKeyId, StorageClass } = await client.send(new HeadObjectCommand(object));
        expect([name, ServerSideEncryption, SSEKMSKeyId, StorageClass]).toEqual([
          name,
          'aws:kms',
          'ours',
          'STANDARD_IA',
        ]);
        const { TagSet } = await client.send(new GetObjectTaggingCommand(object));
        expect(TagSet).toEqual([
          { Key: 'team', Value: 'a' },
          { Key: 'job', Value: 'b c' },
        ]);
      }
    });
  }, 60_000);
}

for (const identity of hasMoto ? (['root', 'user'] as const) : []) {
  describe(`as ${identity}`, () => {
    const it = inTurn(identity);
    const run = async (bed: Bed, url: string, command: readonly string[], retryS = 60): Promise<Job> =>
      bed.run(await bed.place({ clockOffsetS: jobs * 5_000 }), ['--image-url', url], command, {
        env: environment(retryS),
      });

    test('64 MiB of memory continue elsewhere, twice, and then the job is finished', async () => {
      await withBed(identity, async (bed) => {
        const [url, stopFile] = [newUrl(), bed.path('stop')];
        const command = [PYTHON, fixture('memory.py'), stopFile, '64'];
        const first = await run(bed, url, command);
        await first.ready('scratch');
        await first.progresses(3);
        const frozen = await first.freeze();
        expect(frozen.stderr).toContain(`Checkpoint to ${url} complete: generation 1`);
        expect(await generations(url)).toEqual(['manifest-00000001.json']);

        const second = await run(bed, url, command);
        await second.ready('restored');
        await second.progresses(3);
        await second.commits(['--leave-running']);
        await second.progresses(3);
        await second.freeze();
        // --keep 2
        expect(await generations(url)).toEqual(['manifest-00000002.json', 'manifest-00000003.json']);

        const third = await run(bed, url, command);
        await third.ready('restored');
        await third.progresses(3);
        await finish(third, stopFile);
        checkLines(first.stdout + second.stdout + third.stdout);
        expectQuiet(first, second, third);

        const again = await run(bed, url, ['env']);
        expect(await again.ends()).toMatchObject({ code: 0 });
        expect(again.stderr).toMatch(/This job finished with exit_code=0/);
        // Its environment is the one of `run`: what silences the SDK is not in it.
        expect(again.stdout).toContain('FASTFREEZE=1');
        expect(again.stdout).not.toContain('AWS_SDK_JS_');
        // Nothing half-done is left.
        expect(await openStore(url).sweepUnfinished(() => true, 0)).toBe(0);
        expect((await openStore(url).list('')).filter(({ name }) => name.startsWith('probe'))).toEqual([]);
      });
    }, 240_000);

    it('connections that are reset, up and down, are no failure', async () => {
      await withBed(identity, async (bed) => {
        const [url, stopFile] = [newUrl(), bed.path('stop')];
        const command = [PYTHON, fixture('memory.py'), stopFile, '64'];
        const job = await run(bed, url, command);
        await job.ready('scratch');
        await job.progresses(2);
        for (const bytes of [3_000, 5 * MB, 20 * MB]) {
          proxy.trap('up', bytes, 'reset');
          await job.commits(['--leave-running']);
          expect(proxy.armed).toBe(false);
        }
        await job.freeze();
        proxy.trap('down', 20 * MB, 'reset');
        const next = await run(bed, url, command);
        await next.ready('restored');
        expect(proxy.armed).toBe(false);
        await next.progresses(3);
        await finish(next, stopFile);
        checkLines(job.stdout + next.stdout);
        expectQuiet(job, next);
      });
    }, 240_000);

    it('the service goes away in the middle of a checkpoint: the job runs on, the old image restores', async () => {
      await withBed(identity, async (bed) => {
        const [url, stopFile] = [newUrl(), bed.path('stop')];
        const command = [PYTHON, fixture('memory.py'), stopFile, '64'];
        const job = await run(bed, url, command, 3);
        await job.ready('scratch');
        await job.progresses(2);
        await job.commits(['--leave-running']);
        const before = await generations(url);

        proxy.trap('up', 12 * MB, 'refuse');
        expectHelpfulError(await job.checkpoint(), /connection (refused|was reset)|nobody listens/);
        expect(proxy.armed).toBe(false);
        expect(job.running).toBe(true);
        await job.progresses(5);
        expect(bed.survivors().filter((one) => /\bcriu\b/.test(one.command) || /^[Tt]$/.test(one.state))).toEqual([]);
        expect(await generations(url)).toEqual(before);
        // Before anything is frozen, when it is known to be away.
        expectHelpfulError(await job.checkpoint(), /connection refused/);
        await job.progresses(2);

        await proxy.accept();
        const [place, copy] = [await bed.place(), newUrl()];
        expect(await place.fastfreeze(['cp', url, copy], { env: environment(60) })).toMatchObject({ code: 0 });
        const old = await run(bed, copy, command);
        await old.ready('restored');
        await old.progresses(3);
        signalPid(old.pid, 'SIGTERM');
        await old.ends();

        await job.freeze();
        const next = await run(bed, url, command);
        await next.ready('restored');
        await finish(next, stopFile);
        checkLines(job.stdout + next.stdout);
        expectQuiet(job, old, next);
      });
    }, 240_000);

    it('a service without conditional writes: run says so, and the job continues all the same', async () => {
      await withBed(identity, async (bed) => {
        front.refuse = (asked) =>
          asked.headers['if-none-match'] === undefined ? undefined : { status: 501, code: 'NotImplemented' };
        const [url, stopFile] = [newUrl(), bed.path('stop')];
        const command = ['sh', fixture('shell-loop.sh'), stopFile];
        const job = await run(bed, url, command);
        await job.ready('scratch');
        expect(job.stderr).toMatch(/Warning: .*has no conditional writes: fencing is best effort/);
        await job.progresses(2);
        await job.freeze();
        expect(await generations(url)).toEqual(['manifest-00000001.json']);
        const next = await run(bed, url, command);
        await next.ready('restored');
        await next.progresses(2);
        await finish(next, stopFile);
        checkLines(job.stdout + next.stdout);
        expectQuiet(job, next);
      });
    }, 120_000);

    it('a service that is far away and overloaded: every second request is refused, and it takes longer', async () => {
      await withBed(identity, async (bed) => {
        let [requests, refused] = [0, 0];
        proxy.delayMs = 5;
        front.refuse = () => {
          if (requests++ % 2 === 1) return undefined;
          refused++;
          return { status: 503, code: 'SlowDown' };
        };
        const [url, stopFile] = [newUrl(), bed.path('stop')];
        const command = [PYTHON, fixture('memory.py'), stopFile, '64'];
        const job = await run(bed, url, command);
        await job.ready('scratch');
        expect(job.stderr).not.toMatch(/Warning/);
        await job.progresses(2);
        await job.freeze();
        const next = await run(bed, url, command);
        await next.ready('restored');
        await next.progresses(2);
        await finish(next, stopFile);
        expect(refused).toBeGreaterThan(20);
        checkLines(job.stdout + next.stdout);
        expectQuiet(job, next);
      });
    }, 180_000);

    it('a service that is away, or a bucket that does not exist: 171, and nothing runs', async () => {
      await withBed(identity, async (bed) => {
        const stopFile = bed.path('stop');
        const command = ['sh', fixture('shell-loop.sh'), stopFile];
        const nowhere = await run(bed, 's3://no-such-bucket/job', command);
        expect(await nowhere.ends()).toMatchObject({ code: 171 });
        expect(nowhere.stderr).toMatch(/Error: .*there is no bucket no-such-bucket/);
        expect(nowhere.stderr).toMatch(/Try: make it \(aws s3 mb s3:\/\/no-such-bucket\)/);
        expect(nowhere.stdout).toBe('');

        proxy.refuse();
        const away = await run(bed, newUrl(), command, 1);
        expect(await away.ends()).toMatchObject({ code: 171 });
        expect(away.stderr).toMatch(/Error: .*connection refused.*\(\d+ (try|tries) in \d s\)/);
        expect(away.stdout).toBe('');
        await proxy.accept();

        // Asked for explicitly, the job runs all the same, and the checkpoint says what is missing.
        const job = bed.run(await bed.place(), ['--no-restore', '--image-url', 's3://no-such-bucket/job'], command, {
          env: environment(1),
        });
        await job.ready('scratch');
        expect(job.stderr).toMatch(/Warning: .*there is no bucket no-such-bucket.*checkpoints will fail/);
        expectHelpfulError(await job.checkpoint(), /there is no bucket no-such-bucket/);
        await job.progresses(3);
        await finish(job, stopFile);
        checkLines(job.stdout);
      });
    }, 120_000);
  });
}
