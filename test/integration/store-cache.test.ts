// SPDX-License-Identifier: Apache-2.0
// The store in GitHub's cache by the real client, in the process that it has for it, against the strict fake.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createCacheStore } from '../../src/store/cache/cache-store.js';
import { readCacheSettings } from '../../src/store/cache/settings.js';
import { StagingDirectory } from '../../src/store/cache/staging-directory.js';
import { openStore, type Store } from '../../src/store/store.js';
import { CacheFake, type CacheFault, type CacheRequest } from '../support/cache-fake.js';
import { sleep, until } from '../support/until.js';
import { moduleUrl } from '../unit/linux/support.js';
import { describeStore, expectCode } from '../unit/store/conformance.js';

jest.setTimeout(120_000);

/** A commit has to be made within three quarters of it, also on a machine that has much to do. */
const SETTLE_MS = 4_000;

let fake: CacheFake;
let staging: string;
/** Before all others on PATH. */
let tools: string;
/** What the runner empties when a job is over. */
let temp: string;
let places = 0;
const saved = { ...process.env };

beforeAll(async () => {
  fake = await CacheFake.start();
  [staging, tools, temp] = [directory(), directory(), directory()];
  // Silent as long as a file says so, as one that is killed or cannot be started.
  writeFileSync(join(tools, 'zstd'), '#!/bin/sh\n[ -e "${0%/*}/silent" ] && exit 1\nexec /usr/bin/zstd "$@"\n', {
    mode: 0o755,
  });
  Object.assign(process.env, fake.env(), {
    RUNNER_TEMP: temp,
    TMPDIR: staging,
    FF_STORE_RETRY_S: '2',
    PATH: `${tools}:${saved['PATH'] ?? ''}`,
  });
});

beforeEach(() => {
  fake.requests.length = 0;
});

afterEach(() => {
  fake.fault = () => undefined;
  fake.isFull = false;
  fake.newestBy = 'reserved';
  fake.limitBytes = Infinity;
  fake.check();
});

afterAll(async () => {
  // Idle processes go by themselves, and what they had on disk with them.
  await until('the staging directory to be empty', () => readdirSync(staging).length === 0, 20_000);
  expect(readdirSync(temp)).toEqual([]);
  for (const path of [staging, tools, temp]) rmSync(path, { recursive: true });
  process.env = saved;
  await fake.stop();
});

describeStore(
  'cache:',
  () => {
    const url = `cache:team/job ä,${places++}`;
    return { open: () => openStore(url), listsUnfinished: false, rounds: 2 };
  },
  'write-once',
);

describe('a failure that the client only logs', () => {
  test.each<[string, CacheRequest['what'], CacheFault, string]>([
    ['a reservation that is refused', 'reserve', { kind: 'answer', status: 403, message: 'no' }, '(403)'],
    [
      'a full cache',
      'reserve',
      { kind: 'answer', status: 403, message: 'insufficient usage' },
      "repository's cache is full",
    ],
    [
      'an upload that is refused',
      'upload',
      { kind: 'answer', status: 403, message: 'sig' },
      'uploading cache archive: sig',
    ],
    ['an upload that does not arrive whole', 'finalize', { kind: 'answer', status: 400, message: 'short' }, 'short'],
    [
      'a rate limit that lasts',
      'reserve',
      { kind: 'answer', status: 429, headers: { 'retry-after': '60' } },
      'ate limit',
    ],
  ])('%s is an error, and nothing is there', async (_, what, fault, text) => {
    const store = open();
    fake.fault = (request) => (request.what === what ? fault : undefined);
    const error = await expectCode('store', write(store, 'a.ffs', Buffer.from('x')), text);
    expect(error.hint).toBeDefined();
    fake.fault = () => undefined;
    expect(await store.size('a.ffs')).toBeUndefined();
  });

  test('a lookup that fails is not one that finds nothing', async () => {
    const store = open();
    await store.createIfAbsent('manifest-00000001.json', Buffer.from('x'));
    fake.fault = ({ what }) => (what === 'lookup' ? { kind: 'reset' } : undefined);
    await expectCode('store', store.list('manifest-'));
    await expectCode('store', store.size('manifest-00000001.json'));
    fake.fault = ({ what }) =>
      what === 'lookup' ? { kind: 'answer', status: 403, message: 'cache read denied: no scope' } : undefined;
    await expectCode('store', store.list('manifest-'), 'this run may not do so');
  });

  test('nor is one for which zstd does not answer: the client would look for others', async () => {
    const store = open();
    await store.createIfAbsent('manifest-00000001.json', Buffer.from('x'));
    writeFileSync(join(tools, 'silent'), '');
    try {
      const error = await expectCode('store', store.list('manifest-'), 'zstd did not answer');
      expect(error.reason).toMatch(/\(\d+ tries\)$/);
      await expectCode('store', write(store, 'a.ffs', Buffer.from('x')), 'zstd did not answer');
    } finally {
      rmSync(join(tools, 'silent'));
    }
    expect(await store.list('manifest-')).toMatchObject([{ name: 'manifest-00000001.json' }]);
  });

  test('a download that fails is told, and passes when it is tried again', async () => {
    const store = open();
    await write(store, 'a.ffs', Buffer.from('content'));
    fake.fault = ({ what }) => (what === 'download' ? { kind: 'answer', status: 403 } : undefined);
    const into = Buffer.alloc(7);
    await expectCode('store', store.read('a.ffs', 0, into));
    let failures = 0;
    fake.fault = ({ what }) => (what === 'reserve' && failures++ < 1 ? { kind: 'answer', status: 429 } : undefined);
    await write(store, 'b.ffs', Buffer.from('later'));
    expect(failures).toBe(2);
    fake.fault = () => undefined;
    await store.read('a.ffs', 0, into);
    expect(into.toString()).toBe('content');
  });

  test('a commit whose answer is lost is one', async () => {
    const store = open();
    fake.fault = ({ what }) => (what === 'finalize' ? { kind: 'lose-answer' } : undefined);
    expect(await store.createIfAbsent('manifest-00000001.json', Buffer.from('mine'))).toBe('created');
    fake.fault = () => undefined;
    expect(await open(places).createIfAbsent('manifest-00000001.json', Buffer.from('theirs'))).toBe('exists');
  });
});

test('a key that an attempt left reserved is no hindrance to the next', async () => {
  const store = open();
  let uploads = 0;
  fake.fault = ({ what }) => (what === 'finalize' && uploads++ === 0 ? { kind: 'reset' } : undefined);
  await write(store, 'a.ffs', Buffer.from('twice'));
  expect(
    fake
      .keys()
      .filter((key) => key.includes('a.ffs'))
      .at(-1),
  ).toMatch(/:a\.ffs:5:2$/);
  expect(await store.size('a.ffs')).toBe(5);
});

test('a commit whose writer was killed is waited for, and then overtaken by one', async () => {
  const settings = { ...readCacheSettings('cache:x', process.env), settleMs: SETTLE_MS };
  const twins = [1, 2, 3].map(() => createCacheStore('killed', settings, {}));
  const [first] = twins;
  await first?.createIfAbsent('manifest-00000001.json', Buffer.from('x'));
  const version = fake.entry('fastfreeze:killed:manifest-00000001.json:once:1')?.version ?? '';
  fake.reserve('fastfreeze:killed:manifest-00000002.json:once:1', version);
  const outcomes = await Promise.all(
    twins.map((twin, i) => twin.createIfAbsent('manifest-00000002.json', Buffer.from(`twin ${i}`))),
  );
  expect(outcomes.filter((outcome) => outcome === 'created')).toHaveLength(1);
  const into = Buffer.alloc(6);
  await first?.read('manifest-00000002.json', 0, into);
  expect(into.toString()).toBe(`twin ${outcomes.indexOf('created')}`);
});

describe('one of twins that stood still at its commit for longer than others wait', () => {
  test.each([
    ['reserved', 'has committed', false],
    ['finalized', 'is about to', true],
  ] as const)('commits nothing, where the newest entry was %s last, and another %s', async (by, _, isHeld) => {
    fake.newestBy = by;
    const name = 'manifest-00000001.json';
    const settings = { ...readCacheSettings('cache:x', process.env), settleMs: SETTLE_MS };
    const job = `twins-${by}-${isHeld}`;
    const [slow, quick, reader] = [0, 1, 2].map(() => createCacheStore(job, settings, {}));
    const [slowGoes, quickGoes] = [gate(), gate()];
    fake.fault = ({ what, key }) => {
      if (what !== 'finalize') return undefined;
      if (key.endsWith(':once:1')) return { kind: 'hold', until: slowGoes.opened };
      return isHeld ? { kind: 'hold', until: quickGoes.opened } : undefined;
    };
    const asked = async (what: CacheRequest['what'], suffix: string, from = 0): Promise<number> =>
      await until(`${what} of ${suffix}`, () => {
        const at = fake.requests.findIndex((one, i) => i >= from && one.what === what && one.key.endsWith(suffix));
        return at < 0 ? undefined : at + 1;
      });
    const slows = slow?.createIfAbsent(name, Buffer.from('slow'));
    await asked('finalize', ':once:1');
    const quicks = quick?.createIfAbsent(name, Buffer.from('fast'));
    const at = await asked('finalize', ':once:2');
    if (!isHeld) expect(await quicks).toBe('created');
    slowGoes.open();
    // It sees that it was too late, and goes on as anybody would: that key is taken as well.
    await asked('reserve', ':once:2', at);
    quickGoes.open();
    expect([await slows, await quicks]).toEqual(['exists', 'created']);
    expect(fake.keys()).toEqual(expect.arrayContaining([1, 2].map((one) => `fastfreeze:${job}:${name}:once:${one}`)));
    const into = Buffer.alloc(4);
    await reader?.read(name, 0, into);
    expect(into.toString()).toBe('fast');
    expect(await quick?.createIfAbsent(name, Buffer.from('more'))).toBe('exists');
  });
});

test('a commit that stood still until another run had gone on from it begins no other, and what followed stays the newest', async () => {
  const [name, next] = ['manifest-00000001.json', 'manifest-00000002.json'];
  const settings = { ...readCacheSettings('cache:x', process.env), settleMs: SETTLE_MS };
  const [slow, other] = [0, 1].map(() => createCacheStore('passed', settings, {}));
  const goes = gate();
  let isFinalized = false;
  fake.fault = ({ what, key }) => {
    if (!key.includes(':passed:') || key.includes(next)) return undefined;
    if (what === 'finalize') isFinalized = true;
    // What comes first after it is its writer's own look.
    return what === 'lookup' && isFinalized ? { kind: 'hold', until: goes.opened } : undefined;
  };
  const slows = slow?.createIfAbsent(name, Buffer.from('slow'));
  await until('the look at what was committed', () => isFinalized && fake.requests.at(-1)?.what === 'lookup');
  expect(await other?.createIfAbsent(next, Buffer.from('next'))).toBe('created');
  await sleep(SETTLE_MS);
  goes.open();
  expect(await slows).toBe('exists');
  fake.fault = () => undefined;
  expect((await other?.list('manifest-'))?.map((one) => one.name)).toEqual([name, next]);
  expect(fake.keys().filter((key) => key.includes(`:passed:${name}`))).toHaveLength(1);
});

function gate(): { readonly open: () => void; readonly opened: Promise<void> } {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { open, opened };
}

test('an object of many blocks comes back as it was; an entry that has gone is missing', async () => {
  const store = open();
  const bytes = randomBytes(140 << 20);
  await write(store, 'large.ffs', bytes);
  expect(fake.requests.filter(({ what }) => what === 'upload').length).toBeGreaterThan(2);
  const reader = await open(places).openReader('large.ffs');
  const into = Buffer.alloc(1 << 20);
  for (const offset of [0, 70 << 20, 139 << 20]) {
    await reader.read(offset, into);
    expect(into.equals(bytes.subarray(offset, offset + into.length))).toBe(true);
  }
  expect(fake.requests.filter(({ what }) => what === 'download')).toHaveLength(1);
  reader.close();
  fake.evict((key) => key.includes('large.ffs'));
  await expectCode('not-found', store.openReader('large.ffs'), 'large.ffs');
});

test('what was evicted while the rest was written is noticed before the commit', async () => {
  const store = open();
  fake.limitBytes = 500_000;
  await write(store, 'p-1.ffs', randomBytes(300_000));
  await write(store, 'p-2.ffs', randomBytes(300_000));
  const error = await expectCode('store', store.createIfAbsent('manifest-00000001.json', Buffer.from('x')), 'p-1.ffs');
  expect(error.reason).toContain('evicted');
  expect(await store.list('manifest-')).toEqual([]);
});

test('more than the limit is refused before it is sent', async () => {
  process.env['FF_CACHE_LIMIT_GB'] = '0.001';
  try {
    const store = open();
    await store.prepare();
    await expectCode('store', write(store, 'a.ffs', randomBytes(2 << 20)), 'larger than the 0.001 GB');
    expect(fake.requests.filter(({ what }) => what === 'reserve')).toEqual([]);
  } finally {
    delete process.env['FF_CACHE_LIMIT_GB'];
  }
});

test('a writer that is called off while it sends leaves nothing, at once', async () => {
  const store = open();
  const writer = await store.createWriter('a.ffs');
  await writer.append([randomBytes(1 << 20)]);
  const reached = new Promise<void>((resolve) => {
    fake.fault = ({ what }) => {
      if (what === 'reserve') resolve();
      return undefined;
    };
  });
  const finishing = writer.finish();
  await reached;
  await writer.abort();
  await expectCode('store', finishing);
  expect(await store.size('a.ffs')).toBeUndefined();
});

test('a token that cannot write, or has expired, is told of before anything is frozen', async () => {
  const token = process.env['ACTIONS_RUNTIME_TOKEN'];
  try {
    Object.assign(process.env, fake.env([{ Scope: 'refs/pull/7/merge', Permission: 1 }]));
    await expectCode('store', open().prepare(), 'may only read');
    Object.assign(process.env, fake.env(undefined, -5));
    await expectCode('store', open().prepare(), 'has expired');
  } finally {
    process.env['ACTIONS_RUNTIME_TOKEN'] = token;
  }
});

test('the runner empties its folder while an object is on its way: what a job leaves behind lies elsewhere', async () => {
  const store = open();
  fake.fault = ({ what }) => {
    if (what === 'reserve') for (const name of readdirSync(temp)) rmSync(join(temp, name), { recursive: true });
    return undefined;
  };
  writeFileSync(join(temp, 'of-the-runner'), '');
  await write(store, 'a.ffs', Buffer.from('content'));
  expect(readdirSync(temp)).toEqual([]);
  expect(await store.size('a.ffs')).toBe(7);
});

test('what a process that was killed left is removed by the next, and nothing of one that lives, or of another user', async () => {
  const base = directory();
  const foreign = join(base, 'fastfreeze-cache-foreign');
  mkdirSync(foreign);
  const isRoot = process.getuid?.() === 0;
  if (isRoot) chownSync(foreign, 64001, 64001);
  symlinkSync('/etc', join(base, 'fastfreeze-cache-link'));
  const script = `
    import { StagingDirectory } from ${JSON.stringify(moduleUrl('store/cache/staging-directory.js'))};
    const { path } = await StagingDirectory.make(${JSON.stringify(base)});
    (await import('node:fs')).writeFileSync(path + '/object-1', 'x');
    console.log(path);
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['--no-warnings', '--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const [said] = (await once(child.stdout, 'data')) as [Buffer];
    const path = said.toString().trim();
    expect(statSync(path).mode & 0o777).toBe(0o700);
    const mine = await StagingDirectory.make(base);
    expect(existsSync(join(path, 'object-1'))).toBe(true);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const next = await StagingDirectory.make(base);
    expect(existsSync(path)).toBe(false);
    expect(existsSync(mine.path)).toBe(true);
    await Promise.all([mine.remove(), next.remove()]);
    expect(readdirSync(base).sort()).toEqual([
      ...(isRoot ? ['fastfreeze-cache-foreign'] : []),
      'fastfreeze-cache-link',
    ]);
  } finally {
    child.kill('SIGKILL');
    rmSync(base, { recursive: true });
  }
});

function directory(): string {
  return mkdtempSync(join('/tmp', 'ff-cache-'));
}

/** A place of its own; with a number, one that is there. */
function open(number = ++places): Store {
  return openStore(`cache:other/${number}`);
}

async function write(store: Store, name: string, bytes: Buffer): Promise<void> {
  const writer = await store.createWriter(name);
  try {
    for (let at = 0; at < bytes.length; at += 1 << 20) await writer.append([bytes.subarray(at, at + (1 << 20))]);
    await writer.finish();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}
