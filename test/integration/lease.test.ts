// SPDX-License-Identifier: Apache-2.0
// Two machines that run one job: never two that run on, never two commits of one generation.
import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { listGenerations } from '../../src/image/generations.js';
import { LEASE_NAME, parseLeaseRecord, type LeaseRecord } from '../../src/store/lease/record.js';
import { openStore } from '../../src/store/store.js';
import { withBed, type Bed } from '../support/bed.js';
import { GcsFake, type SeenRequest } from '../support/gcs-fake.js';
import type { Job } from '../support/job.js';
import { hasMoto, startMoto, type S3Server } from '../support/moto.js';
import { signalPid } from '../support/processes.js';
import { ended } from '../support/place.js';
import { fastfreeze, fixture } from '../support/stage.js';
import { until } from '../support/until.js';

const FULL = process.env['FF_TEST_FULL'] === '1';
const RACES = FULL ? 50 : 6;
/** The shortest that `run` takes. */
const SHORT_TTL = ['--lease-ttl', '3s'];
const saved = { ...process.env };

let fake: GcsFake;
let moto: S3Server | undefined;
let places = 0;

beforeAll(async () => {
  fake = await GcsFake.start();
  fake.makeBucket('leases');
  if (hasMoto) {
    moto = await startMoto();
    Object.assign(process.env, moto.env);
    await moto.makeBucket('leases');
  }
  Object.assign(process.env, fake.env);
}, 60_000);

afterEach(() => {
  fake.fault = () => undefined;
});

afterAll(async () => {
  process.env = saved;
  await fake.stop();
  await moto?.stop();
});

const loop = (bed: Bed): string[] => ['sh', fixture('shell-loop.sh'), bed.path('stop')];
const fileUrl = (bed: Bed): string => `file:${bed.directory(`images-${++places}`)}`;
const environment = (): Record<string, string> => ({ ...fake.env, ...moto?.env });

async function leaseOf(url: string): Promise<LeaseRecord | undefined> {
  const found = await openStore(url).readVersion(LEASE_NAME);
  return found === undefined ? undefined : parseLeaseRecord(found.bytes);
}

const kinds: readonly (readonly [string, (bed: Bed) => string])[] = [
  ['file:', fileUrl],
  ['gs:', () => `gs://leases/race-${++places}`],
  ...(hasMoto ? [['s3:', () => `s3://leases/race-${++places}`] as const] : []),
];
if (!hasMoto) test.skip('twins at s3:, against moto', () => undefined);

describe.each(kinds)('at %s', (_kind, urlIn) => {
  test('of twins that start at the same moment one runs, and the other says where', async () => {
    await withBed('root', async (bed) => {
      const machines = [await bed.place(), await bed.place()];
      for (let race = 1; race <= RACES; race++) {
        const url = urlIn(bed);
        const twins = machines.map((place) =>
          bed.run(place, ['--image-url', url, '--lease-wait', '0'], loop(bed), { env: environment() }),
        );
        const [winner, loser] = await settle(twins);
        expect(await loser.ends()).toMatchObject({ code: 170 });
        expect(loser.stderr).toContain(`this job runs already (${winner.place.hostname}, process `);
        expect(loser.stderr).toMatch(/Try: .*--force-lease/);
        expect(loser.stdout).toBe('');
        expect((await leaseOf(url))?.holder?.host).toBe(winner.place.hostname);
        await winner.freeze();
        expect(await listGenerations(openStore(url))).toEqual([1]);
        expect((await leaseOf(url))?.holder).toBeNull();
      }
    });
  }, 900_000);

  test('who forces the lease runs on; the other commits nothing any more, and its application goes on', async () => {
    await withBed('root', async (bed) => {
      const url = urlIn(bed);
      const first = bed.run(await bed.place(), ['--image-url', url], loop(bed), { env: environment() });
      await first.ready('scratch');
      await first.commits(['--leave-running']);
      const second = bed.run(await bed.place(), ['--image-url', url, '--force-lease'], loop(bed), {
        env: environment(),
      });
      await second.ready('restored');
      const refused = await first.checkpoint(['--leave-running']);
      expect(refused.code).toBe(170);
      expect(refused.stderr).toContain(`another run of this job has its lease now: ${second.place.hostname}, process `);
      await first.progresses(2);
      await second.freeze();
      expect(await listGenerations(openStore(url))).toEqual([1, 2]);
      first.signal('SIGTERM');
      await first.ends();
    });
  }, 120_000);
});

test('the lease of a run that was killed is taken at once on the same machine, also with its state elsewhere', async () => {
  await withBed('root', async (bed) => {
    const url = fileUrl(bed);
    const first = bed.run(await bed.place(), ['--image-url', url], loop(bed));
    await first.ready('scratch');
    await first.commits(['--leave-running']);
    signalPid(first.pid, 'SIGKILL');
    await until('all of it to have gone', () => bed.survivors().length === 0);
    const second = bed.run(await bed.place(), ['--image-url', url, '--lease-wait', '2s'], loop(bed));
    await second.ready('restored');
    await second.freeze();
  });
}, 120_000);

test('on another machine it is taken after its time to live, which is said', async () => {
  await withBed('root', async (bed) => {
    const url = fileUrl(bed);
    const bootId = '/proc/sys/kernel/random/boot_id';
    const first = bed.run(await bed.place(), ['--image-url', url, ...SHORT_TTL], loop(bed));
    await first.ready('scratch');
    await first.commits(['--leave-running']);
    // As a machine that has lost its power: nobody gives the lease up.
    const left = readFileSync(bed.path(url.split('/').at(-1) ?? '', LEASE_NAME));
    signalPid(first.pid, 'SIGKILL');
    await until('all of it to have gone', () => bed.survivors().length === 0);
    writeFileSync(bed.path(url.split('/').at(-1) ?? '', LEASE_NAME), left);
    const elsewhere = await bed.place({ files: { [bootId]: `${randomUUID()}\n` } });
    const second = bed.run(elsewhere, ['--image-url', url], loop(bed));
    await second.says(new RegExp(`This job runs on ${first.place.hostname}, process \\d+; waiting up to 60 s`));
    await second.ready('restored');
    await second.freeze();
  });
}, 120_000);

test('while the service is away the application runs on, and checkpoints again when it is back', async () => {
  await withBed('root', async (bed) => {
    const url = `gs://leases/away-${++places}`;
    const env = { ...environment(), FF_STORE_RETRY_S: '1' };
    const job = bed.run(await bed.place(), ['--image-url', url, ...SHORT_TTL], loop(bed), { env });
    await job.ready('scratch');
    goAway();
    await job.says(/the lease of .* may be lost .*: the application runs on/);
    await job.progresses(2);
    const refused = await job.checkpoint();
    expect(refused.code).toBe(170);
    expect(refused.stderr).toContain('503');
    fake.fault = () => undefined;
    await job.says(/The lease of .* is renewed again/);
    await job.freeze();
  });
}, 120_000);

test('with --strict-lease it is stopped meanwhile, and ended when another run has the lease', async () => {
  await withBed('root', async (bed) => {
    const url = `gs://leases/strict-${++places}`;
    const env = { ...environment(), FF_STORE_RETRY_S: '1' };
    const strict = ['--image-url', url, '--strict-lease', ...SHORT_TTL];
    const job = bed.run(await bed.place(), strict, loop(bed), { env });
    await job.ready('scratch');
    await job.commits(['--leave-running']);
    goAway();
    await job.says(/the application is stopped until it is renewed/);
    await stands(job);
    fake.fault = () => undefined;
    await job.says(/is renewed again/);
    await job.progresses(2);
    const other = bed.run(await bed.place(), ['--image-url', url, '--force-lease'], loop(bed), { env });
    await other.ready('restored');
    expect(await job.ends()).toMatchObject({ code: 170 });
    expect(job.stderr).toContain(`another run of this job has its lease now: ${other.place.hostname}`);
    await other.progresses(2);
    await other.freeze();
  });
}, 120_000);

test('with --strict-lease it is stopped also when the lease lapsed while CRIU held it', async () => {
  await withBed('root', async (bed) => {
    const url = `gs://leases/frozen-${++places}`;
    const strict = ['--image-url', url, '--strict-lease', ...SHORT_TTL];
    const job = bed.run(await bed.place(), strict, loop(bed), { env: environment() });
    await job.ready('scratch');
    await job.commits(['--leave-running']);
    // From the moment on in which an image is uploaded: its application is frozen then.
    let hasBegun = false;
    const isAway = holdUp(({ query }) => (hasBegun ||= query['name']?.endsWith('.ffs') === true));
    const client = job.place.start([...fastfreeze(), 'checkpoint']);
    const end = ended(client, 'the client', () => '');
    await until('the service to be away', isAway);
    await job.says(/the application is stopped until it is renewed/);
    signalPid(client.pid ?? -1, 'SIGKILL');
    await end;
    await until('CRIU to let go', () => bed.survivors().every(({ command }) => !/\bcriu\b/.test(command)));
    await stands(job);
    fake.fault = () => undefined;
    await job.says(/is renewed again/);
    await job.progresses(2);
    await job.freeze();
  });
}, 120_000);

test('a commit that the service holds up is given up when another run takes the lease meanwhile', async () => {
  await withBed('root', async (bed) => {
    const url = `gs://leases/held-up-${++places}`;
    const job = bed.run(await bed.place(), ['--image-url', url, ...SHORT_TTL], loop(bed), { env: environment() });
    await job.ready('scratch');
    await job.commits(['--leave-running']);
    const isHeldUp = holdUp(isManifest);
    // The service is tried again for two minutes.
    const refused = job.checkpoint([], { timeoutMs: 60_000 });
    await until('the commit to be held up', isHeldUp);
    const other = bed.run(await bed.place(), ['--image-url', url, '--force-lease'], loop(bed), { env: environment() });
    await other.ready('restored');
    const { code, stderr } = await refused;
    expect(code).toBe(170);
    expect(stderr).toContain(`another run of this job has its lease now: ${other.place.hostname}`);
    fake.fault = () => undefined;
    await job.progresses(2);
    expect(await listGenerations(openStore(url))).toEqual([1]);
    await other.freeze();
    expect(await listGenerations(openStore(url))).toEqual([1, 2]);
    job.signal('SIGTERM');
    await job.ends();
  });
}, 120_000);

test('and so is the record that the job has finished', async () => {
  await withBed('root', async (bed) => {
    const url = `gs://leases/end-${++places}`;
    const job = bed.run(await bed.place(), ['--image-url', url, ...SHORT_TTL], loop(bed), { env: environment() });
    await job.ready('scratch');
    await job.commits(['--leave-running']);
    const isHeldUp = holdUp(isManifest);
    writeFileSync(bed.path('stop'), '');
    await until('the record to be held up', isHeldUp);
    const other = bed.run(await bed.place(), ['--image-url', url, '--force-lease'], loop(bed), { env: environment() });
    await other.ready('restored');
    expect(await job.ends()).toMatchObject({ code: 0 });
    expect(job.stderr).toMatch(/the record that the job has finished could not be written: .*its lease now/);
    fake.fault = () => undefined;
    expect(await other.ends()).toMatchObject({ code: 0 });
    expect(await listGenerations(openStore(url))).toEqual([1, 2]);
  });
}, 120_000);

test('a commit waits for a service that is away for longer than the lease, when nobody else has taken it', async () => {
  await withBed('root', async (bed) => {
    const url = `gs://leases/outage-${++places}`;
    const job = bed.run(await bed.place(), ['--image-url', url, ...SHORT_TTL], loop(bed), { env: environment() });
    await job.ready('scratch');
    let isAway = false;
    holdUp((request) => (isAway ||= isManifest(request)));
    const committed = job.commits();
    await job.says(/the lease of .* may be lost/);
    fake.fault = () => undefined;
    await committed;
    expect(await job.ends()).toMatchObject({ code: 137 });
    expect(await listGenerations(openStore(url))).toEqual([1]);
  });
}, 120_000);

test('something else under its name is refused, and replaced only by force', async () => {
  await withBed('root', async (bed) => {
    const url = fileUrl(bed);
    const path = bed.path(url.split('/').at(-1) ?? '', LEASE_NAME);
    writeFileSync(path, '{"of": "another tool"}');
    const refused = bed.run(await bed.place(), ['--image-url', url], loop(bed));
    expect(await refused.ends()).toMatchObject({ code: 170 });
    expect(refused.stderr).toContain('lease.json is not a lease');
    expect(readFileSync(path, 'utf8')).toBe('{"of": "another tool"}');
    const forced = bed.run(await bed.place(), ['--image-url', url, '--force-lease'], loop(bed));
    await forced.ready('scratch');
    await forced.freeze();
  });
}, 120_000);

test('without the right to write at the start it is taken later, unless another run has gone further', async () => {
  await withBed('root', async (bed) => {
    const env = { ...environment(), FF_STORE_RETRY_S: '1' };
    for (const overtaken of [false, true]) {
      const url = `gs://leases/late-${++places}`;
      fake.fault = ({ method }) =>
        method === 'POST' ? { kind: 'answer', status: 403, reason: 'forbidden', message: 'read only' } : undefined;
      const job = bed.run(await bed.place(), ['--image-url', url], loop(bed), { env });
      await job.ready('scratch');
      expect(job.stderr).toContain('checkpoints fail until the lease can be taken');
      expect((await job.checkpoint()).code).toBe(170);
      await job.progresses(2);
      fake.fault = () => undefined;
      if (overtaken) {
        const other = bed.run(await bed.place(), ['--image-url', url], loop(bed), { env });
        await other.ready('scratch');
        await other.freeze();
        const refused = await job.checkpoint();
        expect(refused.code).toBe(170);
        expect(refused.stderr).toContain('another run has committed generation 1 since this one started');
        job.signal('SIGTERM');
        await job.ends();
      } else await job.freeze();
      expect(await listGenerations(openStore(url))).toEqual([1]);
    }
  });
}, 120_000);

function goAway(): void {
  fake.fault = () => ({ kind: 'answer', status: 503, reason: 'backendError', message: 'away' });
}

/** Requests like this are told to come again later. Tells whether one came. */
function holdUp(isMeant: (request: SeenRequest) => boolean): () => boolean {
  let came = false;
  fake.fault = (request) => {
    if (!isMeant(request)) return undefined;
    came = true;
    return { kind: 'answer', status: 503 };
  };
  return () => came;
}

function isManifest({ method, query }: SeenRequest): boolean {
  return method === 'POST' && /manifest-\d+\.json$/.test(query['name'] ?? '');
}

/** The one that runs, and the one that does not. */
async function settle(twins: readonly Job[]): Promise<[winner: Job, loser: Job]> {
  const [one, other] = twins;
  if (one === undefined || other === undefined) throw new Error('two twins are needed');
  return await until('one of the twins to run and one to have ended', () => {
    const runs = (job: Job): boolean => /Application is ready/.test(job.stderr);
    if (runs(one) && runs(other)) throw new Error('both run');
    if (!one.running && !other.running) throw new Error(`neither runs:\n${one.stderr}\n${other.stderr}`);
    if (runs(one) && !other.running) return [one, other];
    if (runs(other) && !one.running) return [other, one];
    return undefined;
  });
}

/** It prints nothing for as long as it would have printed several lines. */
async function stands(job: Job): Promise<void> {
  const before = job.stdout;
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  expect(job.stdout).toBe(before);
}
