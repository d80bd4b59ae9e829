// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openCheckCache } from '../../../../src/criu/runtime/check-cache.js';

let folder = '';
let criu = '';
const cacheIn = (directory: string, privileged = true) => openCheckCache({ env: {}, privileged, directory });

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ff-cache-'));
  criu = join(folder, 'criu');
  writeFileSync(criu, 'one');
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('the cache of good checks', () => {
  it('remembers a check in a private folder', async () => {
    const cache = cacheIn(join(folder, 'cache'));
    expect(await cache.read(criu)).toBeUndefined();
    await cache.write(criu, { version: '4.1.1', warning: 'no sockets' });
    expect(await cache.read(criu)).toEqual({ version: '4.1.1', warning: 'no sockets' });
    expect(statSync(join(folder, 'cache')).mode & 0o777).toBe(0o700);
    expect(statSync(join(folder, 'cache/criu-check.json')).mode & 0o777).toBe(0o600);
  });

  it('forgets when the executable changes', async () => {
    const cache = cacheIn(join(folder, 'cache'));
    await cache.write(criu, { version: '4.2.1' });
    utimesSync(criu, 1, 1);
    expect(await cache.read(criu)).toBeUndefined();
    await cache.write(criu, { version: '4.2.1' });
    writeFileSync(criu, 'another size');
    utimesSync(criu, 1, 1);
    expect(await cache.read(criu)).toBeUndefined();
  });

  it('does not take an answer for root as one for a user namespace', async () => {
    await cacheIn(join(folder, 'cache')).write(criu, { version: '4.2.1' });
    expect(await cacheIn(join(folder, 'cache'), false).read(criu)).toBeUndefined();
  });

  it('ignores a folder that others may write to, and does not write into it', async () => {
    const cache = cacheIn(join(folder, 'cache'));
    await cache.write(criu, { version: '4.2.1' });
    chmodSync(join(folder, 'cache'), 0o770);
    expect(await cache.read(criu)).toBeUndefined();
    await cache.write(criu, { version: '9' });
    chmodSync(join(folder, 'cache'), 0o700);
    expect(await cache.read(criu)).toEqual({ version: '4.2.1' });
  });

  it('ignores a symbolic link in place of the folder', async () => {
    mkdirSync(join(folder, 'elsewhere'), { mode: 0o700 });
    symlinkSync('elsewhere', join(folder, 'cache'));
    const cache = cacheIn(join(folder, 'cache'));
    await cache.write(criu, { version: '4.2.1' });
    expect(await cache.read(criu)).toBeUndefined();
  });

  it.each(['', '{', '[]', 'null', '{"a": 1}', '{"a": {"version": 4}}'])('survives a file with %j', async (text) => {
    mkdirSync(join(folder, 'cache'), { mode: 0o700 });
    writeFileSync(join(folder, 'cache/criu-check.json'), text);
    const cache = cacheIn(join(folder, 'cache'));
    expect(await cache.read(criu)).toBeUndefined();
    await cache.write(criu, { version: '4.2.1' });
    expect(await cache.read(criu)).toEqual({ version: '4.2.1' });
  });

  it('never fails where nothing can be written', async () => {
    const cache = cacheIn(join(criu, 'not-a-folder'));
    await cache.write(criu, { version: '4.2.1' });
    expect(await cache.read(criu)).toBeUndefined();
    expect(await cacheIn(join(folder, 'cache')).read('/nonexistent/criu')).toBeUndefined();
  });
});
