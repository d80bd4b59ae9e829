// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { closeSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tryLock } from '../../../../src/linux/flock.js';
import { isKnownDead, thisRun } from '../../../../src/store/lease/self.js';

let directory: string;
const open: number[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ff-self-'));
});

afterEach(() => {
  for (const fd of open.splice(0)) closeSync(fd);
  rmSync(directory, { recursive: true, force: true });
});

function lock(name: string): { path: string; fd: number } {
  const path = join(directory, name);
  const fd = tryLock(path);
  if (fd === undefined) throw new Error(`${path} is locked`);
  open.push(fd);
  return { path, fd };
}

test('a run is dead when its lock is free, and only then', () => {
  const [mine, other] = [lock('mine'), lock('other')];
  const self = thisRun(mine.path, mine.fd);
  const rival = thisRun(other.path, other.fd);
  expect(isKnownDead(rival, self)).toBe(false);
  closeSync(open.pop() ?? -1);
  expect(isKnownDead(rival, self)).toBe(true);
});

test('nothing is known of another boot, of a lock that is not there, nor of another file at its place', () => {
  const [mine, other] = [lock('mine'), lock('other')];
  const self = thisRun(mine.path, mine.fd);
  const rival = thisRun(other.path, other.fd);
  closeSync(open.pop() ?? -1);
  expect(isKnownDead({ ...rival, bootId: 'of another machine' }, self)).toBe(false);
  renameSync(other.path, join(directory, 'moved'));
  expect(isKnownDead(rival, self)).toBe(false);
  writeFileSync(other.path, '');
  expect(isKnownDead(rival, self)).toBe(false);
});

test('who holds the lock that a run had knows that it is dead', () => {
  const mine = lock('mine');
  const before = thisRun(mine.path, mine.fd);
  expect(isKnownDead(before, thisRun(mine.path, mine.fd))).toBe(true);
});
