// SPDX-License-Identifier: Apache-2.0
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, unlinkSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from '@jest/globals';
import { refuseChangedAppending } from '../../../src/container/appending.js';
import { readOpenFiles } from '../../../src/container/open-files.js';
import { readProcess } from '../../../src/container/tree.js';

const dir = mkdtempSync(join(tmpdir(), 'ff-appending-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const fds: number[] = [];
afterEach(() => {
  for (const fd of fds.splice(0)) closeSync(fd);
});

function opened(name: string, flags: string): string {
  const path = join(dir, name);
  const fd = openSync(path, flags);
  fds.push(fd);
  if (flags !== 'r') writeSync(fd, 'hello');
  return path;
}

const ours = (except = '/nowhere') => {
  const self = readProcess(process.pid);
  if (self === undefined) throw new Error('this process has gone');
  return readOpenFiles([self], except).filter(({ path, isAppended }) => path.startsWith(dir) && isAppended);
};

function refusal(files: Parameters<typeof refuseChangedAppending>[0]): unknown {
  try {
    refuseChangedAppending(files);
    return undefined;
  } catch (error) {
    return error;
  }
}

describe('files open for appending', () => {
  test('are found with their length, once each; others are not', () => {
    const path = opened('log', 'a');
    fds.push(openSync(path, 'a'));
    opened('both', 'a+');
    opened('plain', 'w');
    writeFileSync(join(dir, 'input'), 'x');
    opened('input', 'r');
    unlinkSync(opened('gone', 'a'));
    expect(ours()).toEqual([
      { path, lengthBytes: 5, isAppended: true },
      { path: join(dir, 'both'), lengthBytes: 5, isAppended: true },
    ]);
    expect(ours(dir)).toEqual([]);
  });

  test('must have the same length at a restore, unless there are none', () => {
    const path = opened("it's a log", 'a');
    const record = ours();
    expect(() => refuseChangedAppending(record)).not.toThrow();
    truncateSync(path, 7);
    expect(refusal(record)).toMatchObject({
      code: 'conflict',
      reason: 'the file had 5 bytes at the checkpoint and has 7 now: what was added since would appear in it twice',
      hint: `if only this application writes to it, cut it back: truncate -s 5 '${dir}/it'\\''s a log'`,
    });
    truncateSync(path, 2);
    expect(() => refuseChangedAppending(record)).toThrow('a part of it is missing');
    unlinkSync(path);
    expect(() => refuseChangedAppending(record)).not.toThrow();
  });
});
