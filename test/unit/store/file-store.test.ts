// SPDX-License-Identifier: Apache-2.0
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { writeAll } from '../../../src/store/file-io.js';
import { openStore } from '../../../src/store/store.js';
import { storeError } from '../../../src/store/store-error.js';
import { describeStore, expectCode } from './conformance.js';

const root = mkdtempSync(join(tmpdir(), 'ff-store-'));
let places = 0;
afterAll(() => rmSync(root, { recursive: true, force: true }));

const makeDirectory = (): string => join(root, `place ${places++} ä%41`);

describeStore('file:', () => {
  const directory = makeDirectory();
  return { open: () => openStore(directory) };
});

describe('file: store', () => {
  test('prepare makes the directory, for its owner only', async () => {
    const directory = join(makeDirectory(), 'deep', 'er');
    await openStore(directory).prepare();
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(readdirSync(directory)).toEqual([]);
  });

  test('files are for their owner only', async () => {
    const directory = makeDirectory();
    const store = openStore(directory);
    await store.prepare();
    await store.put('a', Buffer.from('x'));
    await store.createIfAbsent('b', Buffer.from('x'));
    await (await store.createWriter('c')).finish();
    for (const name of ['a', 'b', 'c']) expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
    expect(readdirSync(directory).sort()).toEqual(['a', 'b', 'c']);
  });

  test('says what is wrong when the place is a file', async () => {
    const path = makeDirectory();
    writeFileSync(path, '');
    const error = await expectCode('store', openStore(path).prepare(), path);
    expect(error.op).toBe('prepare');
  });

  test('a place that does not exist has no objects', async () => {
    const store = openStore(makeDirectory());
    expect(await store.list('')).toEqual([]);
    expect(await store.size('a')).toBeUndefined();
    await expectCode('not-found', store.openReader('a'));
    await expectCode('store', store.createWriter('a'));
  });

  test('neither directories nor other temporaries are objects', async () => {
    const directory = makeDirectory();
    mkdirSync(join(directory, 'a'), { recursive: true });
    writeFileSync(join(directory, '.profile'), '');
    const store = openStore(directory);
    expect(await store.list('')).toEqual([]);
    expect(await store.size('a')).toBeUndefined();
    await expectCode('not-found', store.openReader('a'));
    expect(await store.sweepUnfinished(() => true, 0)).toBe(0);
    expect(readdirSync(directory).sort()).toEqual(['.profile', 'a']);
  });

  test.each([
    ['ENOSPC', 'no space is left', 'free space'],
    ['EDQUOT', 'quota', 'free space'],
    ['EROFS', 'read-only', 'choose an --image-url'],
    ['EACCES', 'permission denied', 'choose an --image-url'],
  ])('explains %s', (code, reason, hint) => {
    const cause = Object.assign(new Error(code), { code, syscall: 'write' });
    const error = storeError(cause, 'write', '/images/x.ffs');
    expect(error.code).toBe('store');
    expect(error.message).toContain('/images/x.ffs');
    expect(error.reason).toContain(reason);
    expect(error.hint).toContain(hint);
    expect(error.cause).toBe(cause);
  });

  test('any number of pieces, empty ones too, are written one behind the other', async () => {
    const pieces = Array.from({ length: 2500 }, (_, i) => Buffer.alloc(i % 7, i % 251));
    const path = join(root, 'pieces');
    const fd = openSync(path, 'w');
    await Promise.all([writeAll(fd, pieces, 10), writeAll(fd, [Buffer.alloc(10, 0xff)], 0), writeAll(fd, [], 3)]);
    closeSync(fd);
    expect(readFileSync(path).equals(Buffer.concat([Buffer.alloc(10, 0xff), ...pieces]))).toBe(true);
  });

  test('a full device fails the write, in words', async () => {
    const full = openSync('/dev/full', 'w');
    const writing = writeAll(full, [Buffer.alloc(10)], 0).catch((error: unknown) => {
      throw storeError(error, 'write', '/images/a.ffs');
    });
    const error = await expectCode('store', writing, '/images/a.ffs');
    expect(error.reason).toContain('ENOSPC');
    closeSync(full);
  });
});
