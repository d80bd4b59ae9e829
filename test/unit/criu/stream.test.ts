// SPDX-License-Identifier: Apache-2.0
/* Both servers of CRIU's stream protocol against a client that behaves as CRIU does, by way of a real image. */
import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { existsSync, openSync, readFileSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Capture, startCapture } from '../../../src/criu/capture.js';
import { type Serving, startServing } from '../../../src/criu/serve.js';
import { type BlockPool, createBlockPool } from '../../../src/image/blocks.js';
import type { Codec } from '../../../src/image/layout.js';
import { newPrefix } from '../../../src/image/names.js';
import { type ImageReader, openImage } from '../../../src/image/reader.js';
import { type ImageWriter, createImageWriter } from '../../../src/image/writer.js';
import { closeFd, tryRead, tryWrite } from '../../../src/linux/fds.js';
import type { Poller } from '../../../src/linux/poller.js';
import type { Store } from '../../../src/store/store.js';
import { FULL } from '../../support/random.js';
import { until } from '../../support/until.js';
import { makeStore, manifestOf, noise } from '../image/support.js';
import { makeDirectory, makePoller, openStreams, within } from '../linux/support.js';
import { connectUnix, sendWithFds } from '../linux/scm.js';
import { FakeCriu, readAll, ready, requestBytes } from './fake-criu.js';

jest.setTimeout(30_000);

interface Dumping {
  readonly capture: Capture;
  readonly criu: FakeCriu;
  readonly writer: ImageWriter;
}

async function startDump(
  poller: Poller,
  store: Store,
  options: { codec?: Codec; blocks?: BlockPool } = {},
): Promise<Dumping> {
  const directory = makeDirectory();
  const writer = await createImageWriter({
    store,
    prefix: newPrefix(),
    numShards: 2,
    codec: options.codec ?? 'lz4',
    ...(options.blocks === undefined ? {} : { blocks: options.blocks }),
  });
  const capture = startCapture({ directory, poller, writer });
  return { capture, writer, criu: new FakeCriu(poller, join(directory, 'streamer-capture.sock')) };
}

interface Restoring {
  readonly serving: Serving;
  readonly criu: FakeCriu;
  readonly image: ImageReader;
}

async function startRestore(poller: Poller, store: Store, writer: ImageWriter, blocks?: BlockPool): Promise<Restoring> {
  const manifest = manifestOf(await writer.finish());
  const image = await openImage({ store, manifest, ...(blocks === undefined ? {} : { blocks }) });
  const directory = makeDirectory();
  const serving = startServing({ directory, poller, image });
  return { serving, image, criu: new FakeCriu(poller, join(directory, 'streamer-serve.sock')) };
}

function endRestore(restoring: Restoring): void {
  restoring.criu.disconnect();
  restoring.serving.close();
  restoring.image.close();
}

/** How many of our descriptors are on a file. */
function fdsOn(path: string): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false; // The directory's own.
    }
  }).length;
}

/** A sleeping poll keeps what we close alive until it has been woken: the writer learns of it a moment later. */
async function broken(fd: number): Promise<void> {
  await until('EPIPE', () => tryWrite(fd, Buffer.alloc(1), 1) === 'closed', 5_000);
}

/** Dump all files at once, then restore all of them at once, and compare. */
async function roundTrip(
  files: ReadonlyMap<string, Buffer>,
  steps: () => number,
  options: { codec?: Codec; blocks?: BlockPool } = {},
): Promise<void> {
  const poller = makePoller();
  const store = makeStore();
  const { capture, criu, writer } = await startDump(poller, store, options);
  const dumped = await within(
    'the dump',
    Promise.all([...files].map(([name, bytes]) => criu.dump(name, bytes, steps))),
  );
  // What went wrong says more than that something did.
  if (dumped.includes(false)) await within('the reason', capture.complete());
  expect(dumped).not.toContain(false);
  criu.disconnect();
  await within('the capture', capture.complete());
  expect([...capture.files].sort()).toEqual([...files].map(([name, bytes]) => [name, bytes.length]).sort());

  const restoring = await startRestore(poller, store, writer, options.blocks);
  expect(await restoring.criu.openForRestore('no-such.img')).toBeUndefined();
  const names = [...files.keys()].reverse();
  const restored = await within(
    'the restore',
    Promise.race([restoring.serving.failed, Promise.all(names.map((name) => restoring.criu.restore(name, steps)))]),
  );
  const wrong = names.filter((name, i) => restored[i]?.equals(files.get(name) ?? Buffer.alloc(1)) !== true);
  expect(wrong).toEqual([]);
  const total = [...files.values()].reduce((sum, bytes) => sum + bytes.length, 0);
  await until('the count', () => restoring.serving.servedBytes() === total, 2_000);
  endRestore(restoring);
  poller.close();
}

describe('what CRIU writes comes back', () => {
  test('any files, written and read in any pieces, all of them at once', async () => {
    const before = openStreams();
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(
          fc.record({
            name: fc
              .constantFrom('core', 'pages', 'fs', 'mm', 'pagemap', 'ids')
              .chain((kind) => fc.nat({ max: 30 }).map((number) => `${kind}-${number}.img`)),
            sizeBytes: fc.oneof(
              fc.nat({ max: 300 }),
              fc.nat({ max: 10_000 }),
              fc.nat({ max: 300_000 }),
              fc.constantFrom(0, 4096, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1),
            ),
            plain: fc.boolean(),
          }),
          { selector: (file) => file.name, maxLength: 12 },
        ),
        fc.array(fc.oneof(fc.integer({ min: 50, max: 5000 }), fc.integer({ min: 5000, max: 200_000 })), {
          minLength: 1,
        }),
        fc.constantFrom<Codec>('none', 'lz4', 'zstd'),
        async (list, sizes, codec) => {
          const files = new Map(
            list.map(({ name, sizeBytes, plain }, i) => [
              name,
              plain ? Buffer.alloc(sizeBytes, i) : noise(sizeBytes, i + 1),
            ]),
          );
          let turn = 0;
          await roundTrip(files, () => sizes[turn++ % sizes.length] ?? 1, { codec });
        },
      ),
      { numRuns: 25 },
    );
    await until('every pipe to be closed', () => openStreams() <= before, 5_000);
  }, 60_000);

  test('hundreds of files open at the same time, empty ones among them', async () => {
    const files = new Map(
      Array.from({ length: 400 }, (_, i) => [`core-${i}.img`, noise(i % 7 === 0 ? 0 : (i * 977) % 40_000, i + 1)]),
    );
    await roundTrip(files, () => 3000);
  }, 60_000);

  test('files in pieces of ten bytes, side by side', async () => {
    const files = new Map(Array.from({ length: FULL ? 100 : 10 }, (_, i) => [`mm-${i}.img`, noise(10_000, i + 1)]));
    await roundTrip(files, () => 10);
  }, 60_000);

  test('files of 10 MB that are interleaved, in less memory than one of them needs', async () => {
    const files = new Map(Array.from({ length: 4 }, (_, i) => [`pages-${i}.img`, noise(10_000_000 + i * 4096, i + 1)]));
    const blocks = createBlockPool({ fileBlocks: 3, storedBlocks: 2 });
    await roundTrip(files, () => 100_000, { blocks });
  }, 60_000);

  test('of many page files whose readers wait for a CPU, hardly any chunk is brought twice', async () => {
    const poller = makePoller();
    const store = makeStore();
    const { capture, criu, writer } = await startDump(poller, store);
    const files = new Map(Array.from({ length: 24 }, (_, i) => [`pages-${i}.img`, noise(3_000_000 + i * 4096, i + 1)]));
    for (const [name, bytes] of files) await criu.dump(name, bytes);
    criu.disconnect();
    await within('the capture', capture.complete());
    let reads = 0;
    const counting: Store = {
      ...store,
      openReader: async (name) => {
        const reader = await store.openReader(name);
        const read = (offset: number, into: Uint8Array): Promise<void> => {
          reads++;
          return reader.read(offset, into);
        };
        return { sizeBytes: reader.sizeBytes, read, close: () => reader.close() };
      },
    };
    const restoring = await startRestore(poller, counting, writer);
    const fds = new Map<string, number>();
    for (const name of files.keys()) fds.set(name, (await restoring.criu.openForRestore(name)) ?? -1);
    // All are open, and for a while nobody reads; then each has its turn, the last first.
    await sleep(300);
    for (const [name, bytes] of [...files].reverse()) {
      const found = await within(
        name,
        readAll(poller, fds.get(name) ?? -1, () => 1 << 20),
      );
      closeFd(fds.get(name) ?? -1);
      expect(found.equals(bytes)).toBe(true);
    }
    expect(reads).toBeLessThan(1.5 * restoring.image.index.chunks.length);
    endRestore(restoring);
    poller.close();
  }, 60_000);

  test('a file that is written slowly holds up none of the others, nor does one that is read slowly', async () => {
    const poller = makePoller();
    const store = makeStore();
    const blocks = createBlockPool({ fileBlocks: 3, storedBlocks: 2 });
    const { capture, criu, writer } = await startDump(poller, store, { blocks });
    const large = noise(6_000_000, 5);
    const slow = await Promise.all([1, 2, 3, 4].map((i) => criu.openForDump(`pages-${i}.img`)));
    for (const fd of slow) tryWrite(fd, Buffer.from('begun '), 6);
    expect(await within('the file that hurries', criu.dump('pages-9.img', large))).toBe(true);
    for (const fd of slow) tryWrite(fd, Buffer.from('done'), 4);
    slow.forEach((fd) => closeFd(fd));
    criu.disconnect();
    await within('the capture', capture.complete());

    const restoring = await startRestore(poller, store, writer, createBlockPool({ fileBlocks: 3, storedBlocks: 2 }));
    // Several readers of the large file that take a first piece only: pipes full, blocks held.
    const stalled = await Promise.all([0, 1, 2, 3].map(() => restoring.criu.openForRestore('pages-9.img')));
    await sleep(50);
    for (const i of [1, 2, 3, 4]) {
      const small = await within('a small file', restoring.criu.restore(`pages-${i}.img`));
      expect(small?.toString()).toBe('begun done');
    }
    expect((await within('a large file', restoring.criu.restore('pages-9.img')))?.equals(large)).toBe(true);
    for (const fd of stalled) {
      expect(
        (
          await within(
            'a stalled file',
            readAll(poller, fd ?? -1, () => 1 << 20),
          )
        ).equals(large),
      ).toBe(true);
      closeFd(fd ?? -1);
    }
    endRestore(restoring);
  }, 30_000);
});

describe('capture', () => {
  test('is frozen at the first file after cpuinfo.img', async () => {
    const { capture, criu } = await startDump(makePoller(), makeStore());
    let frozen = false;
    void capture.frozen.then(() => (frozen = true));
    await criu.dump('cpuinfo.img', Buffer.from('cpu'));
    await until('the file', () => capture.files.get('cpuinfo.img') === 3);
    expect(frozen).toBe(false);
    await criu.dump('seccomp.img', Buffer.from('x'));
    await until('the freeze', () => frozen, 5_000);
    criu.disconnect();
    await within('the end', capture.complete());
  });

  test('is complete only when every pipe has ended, though the connection has', async () => {
    const { capture, criu } = await startDump(makePoller(), makeStore());
    const fd = await criu.openForDump('pages-1.img');
    criu.disconnect();
    let complete = false;
    const completed = capture.complete().then(() => (complete = true));
    tryWrite(fd, Buffer.from('late'), 4);
    await sleep(50);
    expect(complete).toBe(false);
    closeFd(fd);
    await within('the end', completed);
    expect(capture.files.get('pages-1.img')).toBe(4);
  });

  test('is not complete between two files: only when CRIU says that it has written the last', async () => {
    const { capture, criu } = await startDump(makePoller(), makeStore());
    let tellWritten: () => void = () => undefined;
    let complete = false;
    const written = new Promise<void>((resolve) => (tellWritten = resolve));
    const completed = capture.complete(written).then(() => (complete = true));
    await criu.dump('core-1.img', Buffer.from('first'));
    await until('the file', () => capture.files.get('core-1.img') === 5);
    await sleep(20);
    expect(complete).toBe(false);
    await criu.dump('core-2.img', Buffer.from('second'));
    await criu.dump('core-3.img', Buffer.from('third'));
    // Nothing has been read of the last ones yet: they count all the same.
    tellWritten();
    await within('the end', completed);
    expect([...capture.files]).toEqual([
      ['core-1.img', 5],
      ['core-2.img', 6],
      ['core-3.img', 5],
    ]);
    criu.disconnect();
  });

  test('is not complete when the client dies between a name and its descriptor', async () => {
    const poller = makePoller();
    const { capture, criu } = await startDump(poller, makeStore());
    await criu.dump('core-1.img', Buffer.from('x'));
    await criu.send(requestBytes('pages-1.img'));
    criu.disconnect();
    let outcome = 'pending';
    capture.complete().then(
      () => (outcome = 'complete'),
      () => (outcome = 'failed'),
    );
    await sleep(60);
    expect(outcome).not.toBe('complete');
    capture.abort(new Error('CRIU has ended'));
    await until('the failure', () => outcome === 'failed', 2_000);
  });

  test('abort closes every pipe, the connection and the socket', async () => {
    const before = openStreams();
    const poller = makePoller();
    const directory = makeDirectory();
    const writer = await createImageWriter({ store: makeStore(), prefix: 'p1', numShards: 1, codec: 'none' });
    const capture = startCapture({ directory, poller, writer });
    const path = join(directory, 'streamer-capture.sock');
    const criu = new FakeCriu(poller, path);
    const fds = await Promise.all([1, 2, 3].map((i) => criu.openForDump(`core-${i}.img`)));
    await until('the files', () => capture.files.size === 3);
    const completed = capture.complete();
    completed.catch(() => undefined);
    capture.abort(new Error('called off'));
    capture.abort(new Error('once more'));
    await expect(completed).rejects.toThrow('called off');
    await expect(capture.complete()).rejects.toThrow('called off');
    for (const fd of fds) {
      await broken(fd);
      closeFd(fd);
    }
    await until('the end of the connection', () => criu.isHungUp(), 5_000);
    criu.disconnect();
    expect(existsSync(path)).toBe(false);
    await writer.abort();
    poller.close();
    await until('every descriptor to be closed', () => openStreams() <= before, 5_000);
  });

  test('abort before anybody has connected leaves no socket to connect to', async () => {
    const directory = makeDirectory();
    const writer = await createImageWriter({ store: makeStore(), prefix: 'p1', numShards: 1, codec: 'none' });
    const capture = startCapture({ directory, poller: makePoller(), writer });
    capture.abort(new Error('called off'));
    expect(() => connectUnix(join(directory, 'streamer-capture.sock'))).toThrow(/ENOENT/);
    await writer.abort();
  });

  test.each([
    ['a name that leads elsewhere', requestBytes('../x'), /impossible name/],
    ['a request that is too long', Buffer.from([0, 0, 1, 0]), /no file name needs/],
  ])('%s fails it and closes what is open', async (_, bytes, message) => {
    const { capture, criu } = await startDump(makePoller(), makeStore());
    const fd = await criu.openForDump('core-1.img');
    const completed = capture.complete();
    completed.catch(() => undefined);
    await criu.send(bytes);
    await expect(within('the failure', completed)).rejects.toThrow(message);
    await broken(fd);
    closeFd(fd);
    criu.disconnect();
  });

  test.each(['a name that was used before', 'a descriptor that is no pipe'])(
    '%s fails it, and the descriptor does not stay open: CRIU would wait for ever',
    async (what) => {
      const { capture, criu } = await startDump(makePoller(), makeStore());
      await criu.dump('core-1.img', Buffer.from('x'));
      const completed = capture.complete(new Promise(() => undefined));
      completed.catch(() => undefined);
      if (what.startsWith('a name')) {
        const fd = await criu.openForDump('core-1.img');
        await expect(within('the failure', completed)).rejects.toThrow(/core-1\.img/);
        await broken(fd);
        closeFd(fd);
      } else {
        const path = join(makeDirectory(), 'file');
        const file = openSync(path, 'w');
        await criu.send(requestBytes('core-2.img'));
        await criu.send(Buffer.from('\0'), file);
        closeFd(file);
        await expect(within('the failure', completed)).rejects.toThrow();
        expect(fdsOn(path)).toBe(0);
      }
      criu.disconnect();
    },
  );

  test('a store that fails ends it: pipes are closed, and the reason is the store’s', async () => {
    const poller = makePoller();
    const store = makeStore();
    const failing: Store = {
      ...store,
      createWriter: async (name) => {
        const writer = await store.createWriter(name);
        return { ...writer, append: () => Promise.reject(new Error('the store is full')), abort: () => writer.abort() };
      },
    };
    const { capture, criu, writer } = await startDump(poller, failing, {
      blocks: createBlockPool({ fileBlocks: 2, storedBlocks: 2 }),
    });
    const completed = capture.complete(new Promise(() => undefined));
    completed.catch(() => undefined);
    expect(await within('the broken pipe', criu.dump('pages-1.img', noise(20_000_000, 1)))).toBe(false);
    await expect(within('the failure', completed)).rejects.toThrow(/the store is full/);
    criu.disconnect();
    await writer.abort();
  });

  test('a client that is killed in the middle ends all its files; what came of them counts as it came', async () => {
    const poller = makePoller();
    const directory = makeDirectory();
    const writer = await createImageWriter({ store: makeStore(), prefix: 'p1', numShards: 1, codec: 'none' });
    const capture = startCapture({ directory, poller, writer });
    const child = spawn('python3', ['-c', PYTHON_CLIENT, join(directory, 'streamer-capture.sock')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await within('its files', once(child.stdout, 'data'));
    let complete = false;
    const completed = capture.complete().then(() => (complete = true));
    await sleep(30);
    expect(complete).toBe(false);
    child.kill('SIGKILL');
    await within('the end', completed);
    expect(capture.files.size).toBe(200);
    for (const sizeBytes of capture.files.values()) expect(sizeBytes).toBeGreaterThanOrEqual(5000);
    await writer.abort();
  }, 20_000);
});

/** Opens 200 files, writes to each from a thread of its own, and never ends by itself. */
const PYTHON_CLIENT = `
import os, socket, struct, sys, threading
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect(sys.argv[1])
begun = threading.Barrier(201)
def fill(fd):
    os.write(fd, b"x" * 5000)
    begun.wait()
    while True:
        os.write(fd, b"y")
        threading.Event().wait(0.05)
for i in range(200):
    name = b"core-%d.img" % i
    s.sendall(struct.pack("=I", len(name) + 2) + bytes([10, len(name)]) + name)
    r, w = os.pipe()
    socket.send_fds(s, [b"\\0"], [r])
    os.close(r)
    threading.Thread(target=fill, args=(w,), daemon=True).start()
begun.wait()
print("begun", flush=True)
threading.Event().wait()
`;

describe('serving', () => {
  const files = new Map([
    ['pages-1.img', noise(5_000_000, 1)],
    ['core-1.img', noise(3000, 2)],
  ]);

  async function image(poller: Poller, store: Store, codec: Codec = 'none'): Promise<ImageWriter> {
    const { capture, criu, writer } = await startDump(poller, store, { codec });
    for (const [name, bytes] of files) await criu.dump(name, bytes);
    criu.disconnect();
    await within('the capture', capture.complete());
    return writer;
  }

  test('goes on when CRIU closes a file half read', async () => {
    const poller = makePoller();
    const store = makeStore();
    const restoring = await startRestore(poller, store, await image(poller, store));
    for (let i = 0; i < 12; i++) {
      // More than there are blocks: what a closed file held must come back.
      const fd = (await restoring.criu.openForRestore('pages-1.img')) ?? -1;
      await ready(poller, fd, 1);
      tryRead(fd, Buffer.alloc(1000), 1000);
      closeFd(fd);
    }
    const whole = await within('the same file again', restoring.criu.restore('pages-1.img'));
    expect(whole?.equals(files.get('pages-1.img') ?? Buffer.alloc(0))).toBe(true);
    endRestore(restoring);
  });

  test('hands out no byte of a damaged chunk, and says which object is damaged', async () => {
    const poller = makePoller();
    const store = makeStore();
    const writer = await image(poller, store);
    const sealed = await writer.finish();
    const before = await openImage({ store, manifest: manifestOf(sealed) });
    const { index } = before;
    const file = index.files.get('pages-1.img');
    const [chunk = 0, , firstLength = 0] = index.extents.subarray((file?.firstExtent ?? 0) * 3);
    const [victim = 0] = index.extents.subarray(((file?.firstExtent ?? 0) + 2) * 3);
    const secondLength = index.extents[((file?.firstExtent ?? 0) + 1) * 3 + 2] ?? 0;
    expect(victim).not.toBe(chunk);
    const place = index.chunks.place(victim);
    before.close();
    const name = sealed.shards[place.shard]?.name ?? '';
    const path = join(store.directory, name);
    const bytes = readFileSync(path);
    const at = place.offset + 32 + 1234;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(path, bytes);

    const opened = await openImage({ store, manifest: manifestOf(sealed) });
    const directory = makeDirectory();
    const serving = startServing({ directory, poller, image: opened });
    const criu = new FakeCriu(poller, join(directory, 'streamer-serve.sock'));
    const fd = (await criu.openForRestore('pages-1.img')) ?? -1;
    const got = readAll(poller, fd, () => 50_000);
    await expect(within('the failure', serving.failed)).rejects.toMatchObject({
      code: 'image',
      message: expect.stringContaining(name) as unknown,
    });
    // The engine ends CRIU first: an early end of file would be something that it acts upon.
    serving.close();
    const seen = await within('the end of the pipe', got);
    const original = files.get('pages-1.img') ?? Buffer.alloc(0);
    expect(seen.length).toBeLessThanOrEqual(firstLength + secondLength);
    expect(seen.equals(original.subarray(0, seen.length))).toBe(true);
    closeFd(fd);
    // Nothing more is served: an image that is damaged in one place is not to be restored from another.
    await until('the end of the connection', () => criu.isHungUp(), 5_000);
    criu.disconnect();
    opened.close();
  });

  test('close ends every pipe, the connection and the socket', async () => {
    const before = openStreams();
    const poller = makePoller();
    const store = makeStore();
    const restoring = await startRestore(poller, store, await image(poller, store));
    const fds = await Promise.all([1, 2, 3].map(() => restoring.criu.openForRestore('pages-1.img')));
    await sleep(30);
    restoring.serving.close();
    restoring.serving.close();
    for (const fd of fds) {
      const rest = await within(
        'the end',
        readAll(poller, fd ?? -1, () => 1 << 20),
      );
      expect(rest.length).toBeLessThan(5_000_000);
      closeFd(fd ?? -1);
    }
    await until('the end of the connection', () => restoring.criu.isHungUp(), 5_000);
    endRestore(restoring);
    poller.close();
    await until('every descriptor to be closed', () => openStreams() <= before, 5_000);
  });

  test('survives a client that dies: its pipes are closed and nothing is taken for damage', async () => {
    const poller = makePoller();
    const store = makeStore();
    const restoring = await startRestore(poller, store, await image(poller, store));
    const fds = await Promise.all([1, 2].map(() => restoring.criu.openForRestore('pages-1.img')));
    let failure: unknown;
    restoring.serving.failed.catch((error: unknown) => (failure = error));
    await restoring.criu.send(requestBytes('core-1.img').subarray(0, 7));
    restoring.criu.disconnect();
    fds.forEach((fd) => closeFd(fd ?? -1));
    await sleep(60);
    expect(failure).toBeUndefined();
    restoring.serving.close();
    restoring.image.close();
  });

  test('a request for an impossible name, or a descriptor that takes no bytes, fails it', async () => {
    const poller = makePoller();
    const store = makeStore();
    const first = await startRestore(poller, store, await image(poller, store));
    await first.criu.send(requestBytes('../core-1.img'));
    await expect(within('the failure', first.serving.failed)).rejects.toThrow(/impossible name/);
    endRestore(first);

    const second = await startRestore(poller, store, await image(poller, store));
    await second.criu.send(requestBytes('core-1.img'));
    await ready(poller, second.criu.socketFd, 1);
    const path = join(makeDirectory(), 'file');
    writeFileSync(path, '');
    const file = openSync(path, 'r');
    sendWithFds(second.criu.socketFd, Buffer.from('\0'), [file]);
    closeFd(file);
    await expect(within('the failure', second.serving.failed)).rejects.toThrow(/EBADF/);
    second.serving.close();
    expect(fdsOn(path)).toBe(0);
    endRestore(second);
  });
});
