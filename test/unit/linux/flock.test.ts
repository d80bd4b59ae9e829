// SPDX-License-Identifier: Apache-2.0
import { describe, expect, jest, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd } from '../../../src/linux/fds.js';
import { tryLock } from '../../../src/linux/flock.js';
import { askScript, makeDirectory, moduleUrl, within } from './support.js';

jest.setTimeout(30_000);

describe('tryLock', () => {
  test('gives the lock to one, within a process and between processes, until every copy is closed', async () => {
    const path = join(makeDirectory(), 'lock');
    const held = tryLock(path);
    expect(held).toBeDefined();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(tryLock(path)).toBeUndefined();
    const elsewhere = `
      import { tryLock } from '${moduleUrl('linux/flock.js')}';
      console.log(JSON.stringify({ got: tryLock(${JSON.stringify(path)}) !== undefined }));`;
    expect(await askScript(elsewhere)).toEqual({ got: false });

    // A child keeps the lock for as long as it lives, whatever becomes of us.
    const child = spawn('sleep', ['30'], { stdio: ['ignore', 'ignore', 'ignore', held ?? -1] });
    await within('the child', once(child, 'spawn'));
    closeFd(held ?? -1);
    expect(tryLock(path)).toBeUndefined();
    child.kill('SIGKILL');
    await within('its end', once(child, 'exit'));
    expect(await askScript(elsewhere)).toEqual({ got: true });
    const again = tryLock(path);
    expect(again).toBeDefined();
    closeFd(again ?? -1);
  });

  test('says why when the file cannot be made', () => {
    expect(() => tryLock(join(makeDirectory(), 'missing', 'lock'))).toThrow(/ENOENT/);
  });
});
