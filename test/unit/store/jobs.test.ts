// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { listJobs } from '../../../src/store/store.js';
import { makeDirectory } from '../image/support.js';
import { expectCode } from './conformance.js';

const marks = (name: string): boolean => name === 'mark';

function job(...path: string[]): void {
  const directory = join(...path);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'mark'), '');
}

describe('jobs below a URL', () => {
  test('are found at it and up to four levels below, in order, with URLs that lead to them', async () => {
    const top = makeDirectory();
    for (const path of ['.', 'b', 'a', 'a/x', '1/2/3/4', '1/2/3/4/5', 'with space/100%/ü']) job(top, path);
    mkdirSync(join(top, 'empty'));
    writeFileSync(join(top, 'empty', 'other'), '');
    const { urls, unread } = await listJobs(`file:${top}`, marks);
    const paths = ['', '/1/2/3/4', '/a', '/a/x', '/b', '/with space/100%25/ü'];
    expect(urls).toEqual(paths.map((path) => `file:${top}${path}`));
    expect(unread).toEqual([]);
    for (const url of urls) expect((await listJobs(url, marks)).urls).toContain(url);
  });

  test('are not looked for behind links, and a directory is no mark', async () => {
    const top = makeDirectory();
    const other = makeDirectory();
    job(other);
    symlinkSync(other, join(top, 'link'));
    symlinkSync(top, join(top, 'loop'));
    mkdirSync(join(top, 'a', 'mark'), { recursive: true });
    expect((await listJobs(top, marks)).urls).toEqual([]);
  });

  test('of no such place, or none that stores can be, are an error', async () => {
    await expectCode('not-found', listJobs(join(makeDirectory(), 'none'), marks), 'does not exist');
    await expectCode('usage', listJobs('ftp://x/y', marks), 'ftp');
    const file = join(makeDirectory(), 'file');
    writeFileSync(file, '');
    await expectCode('store', listJobs(file, marks), file);
  });
});
