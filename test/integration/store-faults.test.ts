// SPDX-License-Identifier: Apache-2.0
// Every operation of every store fails once, at every call index, before and after its effect: either the new image is
// committed and whole, or the error is clear and the old one restores.
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { FastFreezeError } from '../../src/base/errors.js';
import { commitManifest, listGenerations, readManifest } from '../../src/image/generations.js';
import { newPrefix } from '../../src/image/names.js';
import { pruneGenerations, removeUncommitted } from '../../src/image/prune.js';
import { openImage } from '../../src/image/reader.js';
import { verifyGeneration } from '../../src/image/verify.js';
import { createImageWriter } from '../../src/image/writer.js';
import { createGsClient } from '../../src/store/gs/gs-client.js';
import { readGsSettings } from '../../src/store/gs/gs-settings.js';
import { parseBucketUrl } from '../../src/store/object/bucket-url.js';
import type { ObjectClient } from '../../src/store/object/object-client.js';
import { createObjectStore } from '../../src/store/object/object-store.js';
import { withRetries } from '../../src/store/object/retry.js';
import { createS3Client } from '../../src/store/s3/s3-client.js';
import { readS3Settings } from '../../src/store/s3/s3-settings.js';
import { openStore, type Store } from '../../src/store/store.js';
import { Fault, withClientFault, withStoreFault, type FaultOptions } from '../support/faults.js';
import { GcsFake } from '../support/gcs-fake.js';
import { hasMoto, startMoto, type S3Server } from '../support/moto.js';
import { FULL } from '../support/random.js';
import { feed, makeDirectory, manifestOf, noise, readAll, type Files } from '../unit/image/support.js';

jest.setTimeout(900_000);

const MIB = 1 << 20;
/** Without FF_TEST_FULL every so many-th call, since each costs a whole image. */
const STEP = FULL ? 1 : 8;

const BOTH = ['before', 'after'] as const;

/** In full both for either service; else each for one of them. */
function timesFor(scheme: string, isSwapped: boolean): readonly (typeof BOTH)[number][] {
  if (FULL || !hasMoto) return BOTH;
  return [(scheme === 'gs') === isSwapped ? 'after' : 'before'];
}

/** Some of what a checkpoint asks of a store, with the pruning that follows. */
const CHECKPOINT_CALLS = [
  ...['prepare', 'list', 'createWriter', 'append', 'finish', 'createIfAbsent', 'put', 'remove'],
  ...['openReader', 'reader.read', 'sweepUnfinished'],
];

const saved = { ...process.env };
let server: S3Server | undefined;
let fake: GcsFake;
let places = 0;

beforeAll(async () => {
  fake = await GcsFake.start();
  fake.makeBucket('faults');
  Object.assign(process.env, fake.env);
  if (!hasMoto) return;
  server = await startMoto();
  Object.assign(process.env, server.env);
  await server.makeBucket('faults');
}, 60_000);

afterAll(async () => {
  process.env = saved;
  await server?.stop();
  await fake.stop();
});

interface Kind {
  readonly scheme: string;
  readonly makeUrl: () => string;
  /** Single requests, where there are such. */
  readonly client?: (url: string) => ObjectClient;
}

const KINDS: readonly Kind[] = [
  { scheme: 'file', makeUrl: () => `file:${makeDirectory()}` },
  {
    scheme: 'gs',
    makeUrl: () => `gs://faults/job ä-${++places}`,
    client: (url) => createGsClient(parseBucketUrl(url), readGsSettings(process.env)),
  },
  ...(hasMoto
    ? [
        {
          scheme: 's3',
          makeUrl: () => `s3://faults/job ä-${++places}`,
          client: (url: string) => createS3Client(parseBucketUrl(url), readS3Settings(process.env)),
        },
      ]
    : []),
];

if (!hasMoto) test.skip('every call to S3 failed once, against moto', () => undefined);

for (const { scheme, makeUrl, client } of KINDS) {
  describe(`${scheme}:`, () => {
    test.each(BOTH)('each operation in turn fails %s its effect', async (when) => {
      const url = makeUrl();
      const place = new Place(url, filesOf(MIB));
      await place.begin();
      const none = new Fault({ nth: 0, when });
      await place.checkpoint(withStoreFault(openStore(url), none), none);
      for (const method of CHECKPOINT_CALLS) expect(none.seen).toContain(method);
      for (const method of none.seen) {
        for (let nth = 1; ; nth++) {
          const fault = new Fault({ nth, when, method });
          await place.checkpoint(withStoreFault(openStore(url), fault), fault);
          if (fault.struck !== undefined) continue;
          expect({ method, nth }).not.toEqual({ method, nth: 1 });
          break;
        }
      }
    });

    test('each read of a restore in turn fails: it says so, and the next restore is whole', async () => {
      const url = makeUrl();
      const place = new Place(url, filesOf(MIB));
      await place.begin();
      for (let nth = 1; ; nth++) {
        const fault = new Fault({ nth, when: nth % 2 === 0 ? 'before' : 'after' });
        const restoring = place.restore(withStoreFault(openStore(url), fault));
        const error = await restoring.catch((reason: unknown) => reason);
        if (fault.struck === undefined) {
          await restoring;
          expect(nth).toBeGreaterThan(6);
          break;
        }
        // Never `not-found`: the job would start anew.
        expectFault(error, fault);
      }
      await place.restore(openStore(url));
    });

    if (client === undefined) return;
    // Each of the two shards has more bytes than one part holds.
    const large = 17 * MIB;
    const storeOn = (url: string, options: FaultOptions): { store: Store; fault: Fault } => {
      const fault = new Fault(options);
      const retries = { random: () => 0.01, maxDelayMs: 100 };
      return { fault, store: createObjectStore(withRetries(withClientFault(client(url), fault), retries)) };
    };

    test.each(timesFor(scheme, false))('each request in turn fails %s its effect, for good', async (when) => {
      const url = makeUrl();
      const place = new Place(url, filesOf(large));
      await place.begin();
      for (let nth = 1; ; nth += STEP) {
        const { store, fault } = storeOn(url, { nth, when });
        await place.checkpoint(store, fault);
        if (fault.struck === undefined) break;
      }
    });

    test.each(timesFor(scheme, true))('each request in turn fails %s its effect, in passing', async (when) => {
      const url = makeUrl();
      const place = new Place(url, filesOf(large));
      await place.begin();
      for (let nth = 1; ; nth += STEP) {
        const { store, fault } = storeOn(url, { nth, when, passing: true });
        // No fault is expected to be seen.
        await place.checkpoint(store, new Fault({ nth: 0, when }));
        if (fault.struck === undefined) break;
      }
      for (let nth = 1; ; nth += STEP) {
        const { store, fault } = storeOn(url, { nth, when, passing: true });
        await place.restore(store);
        if (fault.struck === undefined) break;
      }
    });
  });
}

/** The files of a generation: some of it differs from generation to generation. */
function filesOf(sizeBytes: number): (generation: number) => Files {
  const [pages, threads] = [noise(sizeBytes, 1), noise(300_000, 2)];
  return (generation) => {
    const own = Buffer.from(pages);
    own.writeUInt32LE(generation, sizeBytes >> 1);
    return new Map<string, Uint8Array>([
      ['pages-1.img', own],
      ['pages-2.img', threads],
      ['core-1.img', Buffer.from(`generation ${generation}`)],
      ['empty.img', Buffer.alloc(0)],
    ]);
  };
}

/** One job's images, of which a good one is always there. */
class Place {
  #newest = 0;

  constructor(
    private readonly url: string,
    private readonly filesOf: (generation: number) => Files,
  ) {}

  async begin(): Promise<void> {
    await this.#write(openStore(this.url), newPrefix(), 1);
    this.#newest = 1;
  }

  /** As a checkpoint does it, into a store that may fail. Then looks, with one that does not, at what is there. */
  async checkpoint(store: Store, fault: Fault): Promise<void> {
    const [old, generation, prefix] = [this.#newest, this.#newest + 1, newPrefix()];
    const error = await this.#write(store, prefix, generation).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    const sound = openStore(this.url);
    const there = await listGenerations(sound);
    for (const one of there) await this.#expectWhole(sound, one);
    if (error === undefined) expect(there.at(-1)).toBe(generation);
    else {
      expectFault(error, fault);
      expect(there).toContain(old);
      // A commit whose answer was lost stands.
      if (fault.struck !== 'createIfAbsent' && fault.struck !== 'put' && fault.struck !== 'get') {
        expect(there).toEqual([old]);
      }
    }
    this.#newest = there.at(-1) ?? 0;
    // What is left goes when it is old, and nothing else.
    await removeUncommitted(sound, prefix);
    await pruneGenerations(sound, 1, { graceMs: 0 });
    const { image } = await readManifest(sound, 'newest');
    const needed = [image?.index.name, ...(image?.shards.map((shard) => shard.name) ?? [])];
    const names = (await sound.list('')).map((object) => object.name).filter((name) => /\.ff[is]$/u.test(name));
    expect(names).toEqual(needed.sort());
    expect(await listGenerations(sound)).toEqual([this.#newest]);
    expect(await sound.sweepUnfinished((name) => !name.startsWith('probe-'), 0)).toBe(0);
  }

  async restore(store: Store): Promise<void> {
    const image = await openImage({ store, manifest: await readManifest(store, 'newest') });
    try {
      expectSame(await readAll(image), this.filesOf(this.#newest));
      await image.verifyRest();
    } finally {
      image.close();
    }
  }

  async #expectWhole(store: Store, generation: number): Promise<void> {
    expect((await verifyGeneration(store, generation)).damage).toEqual([]);
    const image = await openImage({ store, manifest: await readManifest(store, generation) });
    expectSame(await readAll(image), this.filesOf(generation));
    image.close();
  }

  /** The order of calls that src/engine/checkpoint.ts has. */
  async #write(store: Store, prefix: string, generation: number): Promise<void> {
    try {
      await store.prepare();
      await listGenerations(store);
      const writer = await createImageWriter({ store, prefix, numShards: 2, codec: 'none' });
      try {
        for (const [name, bytes] of this.filesOf(generation)) {
          await feed(writer, name, bytes);
          if (writer.error !== undefined) throw writer.error;
        }
        const sealed = await writer.finish();
        expect(await commitManifest(store, manifestOf(sealed, generation))).toBe('created');
      } catch (error) {
        await writer.abort();
        throw writer.error ?? error;
      }
    } catch (error) {
      await removeUncommitted(store, prefix).catch(() => undefined);
      throw error;
    }
    // The new image is safe; old ones that stay cost room, nothing else.
    await pruneGenerations(store, 1).catch(() => undefined);
  }
}

/** The error that was injected, or what became of it; not one of ours about something else. */
function expectFault(error: unknown, fault: Fault): void {
  if (!(error instanceof FastFreezeError)) throw error;
  expect(error.code).toBe('store');
  expect(error.reason).toContain('injected');
  expect(fault.struck).toBeDefined();
}

function expectSame(found: ReadonlyMap<string, Uint8Array>, expected: Files): void {
  expect([...found.keys()].sort()).toEqual([...expected.keys()].sort());
  for (const [name, bytes] of expected) expect(Buffer.compare(found.get(name) ?? Buffer.alloc(0), bytes)).toBe(0);
}
