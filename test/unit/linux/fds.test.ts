// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { fstatSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type Pipe,
  closeFd,
  enlargePipe,
  makeFifo,
  makePipe,
  peekPipe,
  readableBytes,
  setNonblocking,
  tryRead,
  tryWrite,
} from '../../../src/linux/fds.js';
import { EAGAIN, SystemError } from '../../../src/linux/libc.js';
import { noise } from '../image/support.js';
import { askScript, makeDirectory, moduleUrl } from './support.js';

jest.setTimeout(30_000);

let pipe: Pipe;
beforeEach(() => {
  pipe = makePipe();
});
afterEach(() => {
  closeFd(pipe.readFd);
  closeFd(pipe.writeFd);
});

const flagsOf = (fd: number): number =>
  Number.parseInt(/^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0', 8);

describe('pipes', () => {
  test('are real ones, closed on exec, and blocking until told otherwise', () => {
    expect(fstatSync(pipe.readFd).isFIFO()).toBe(true);
    for (const fd of [pipe.readFd, pipe.writeFd]) {
      expect(flagsOf(fd) & 0o2000000).not.toBe(0);
      expect(flagsOf(fd) & 0o4000).toBe(0);
      setNonblocking(fd);
      expect(flagsOf(fd) & 0o4000).not.toBe(0);
    }
  });

  test('grow as far as they are allowed to', () => {
    expect(enlargePipe(pipe.writeFd, 1 << 20)).toBe(1 << 20);
    setNonblocking(pipe.writeFd);
    expect(tryWrite(pipe.writeFd, Buffer.alloc(1 << 20), 1 << 20)).toBe(1 << 20);
    // More than any kernel grants: some smaller size is in force afterwards, and the call does not fail.
    expect(enlargePipe(pipe.writeFd, 2 ** 31)).toBeGreaterThanOrEqual(1 << 20);
  });

  test('by name are for their owner only', () => {
    const path = join(makeDirectory(), 'fifo');
    makeFifo(path);
    expect(fstatSync(openAndClose(path)).mode & 0o777).toBe(0o600);
    expect(() => makeFifo(path)).toThrow(/EEXIST.*fifo/);
  });
});

function openAndClose(path: string): number {
  const fd = openSync(path, 'r+');
  opened.push(fd);
  return fd;
}
const opened: number[] = [];
afterEach(() => opened.splice(0).forEach((fd) => closeFd(fd)));

describe('tryRead and tryWrite', () => {
  test('tell bytes, nothing there, the end, a full pipe and a reader that has gone', () => {
    setNonblocking(pipe.readFd);
    setNonblocking(pipe.writeFd);
    const into = Buffer.alloc(100);
    expect(tryRead(pipe.readFd, into, 100)).toBe('again');
    expect(tryWrite(pipe.writeFd, Buffer.from('hello'), 5)).toBe(5);
    expect(readableBytes(pipe.readFd)).toBe(5);
    expect(tryRead(pipe.readFd, into, 3)).toBe(3);
    expect(tryRead(pipe.readFd, into.subarray(3), 97)).toBe(2);
    expect(into.toString('latin1', 0, 5)).toBe('hello');
    expect(tryWrite(pipe.writeFd, Buffer.alloc(1 << 20), 1 << 20)).toBe(65536);
    expect(tryWrite(pipe.writeFd, Buffer.alloc(1), 1)).toBe('again');

    const ended = makePipe();
    closeFd(ended.writeFd);
    expect(tryRead(ended.readFd, into, 100)).toBe(0);
    closeFd(ended.readFd);
    const broken = makePipe();
    closeFd(broken.readFd);
    expect(tryWrite(broken.writeFd, into, 1)).toBe('closed');
    closeFd(broken.writeFd);
  });

  test('throw anything else with the name of the error', () => {
    expect(() => tryRead(-1, Buffer.alloc(1), 1)).toThrow(SystemError);
    expect(() => tryWrite(-1, Buffer.alloc(1), 1)).toThrow(/write: EBADF/);
    // One number, two names: Node's is the one that callers compare with.
    expect(new SystemError('read', EAGAIN).code).toBe('EAGAIN');
    // A pipe's reading end takes no bytes.
    expect(() => tryWrite(pipe.readFd, Buffer.alloc(1), 1)).toThrow(/EBADF/);
  });
});

describe('peekPipe', () => {
  test('copies what a pipe holds and leaves it there, however it was written', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 9000 }), { maxLength: 40 }),
        fc.integer({ min: 0, max: 5000 }),
        fc.boolean(),
        (writes, taken, large) => {
          const own = makePipe();
          try {
            if (large) enlargePipe(own.writeFd, 1 << 20);
            setNonblocking(own.readFd);
            setNonblocking(own.writeFd);
            let held = Buffer.alloc(0);
            writes.forEach((length, i) => {
              const bytes = noise(length, i + 1);
              const put = tryWrite(own.writeFd, bytes, length);
              if (typeof put === 'number') held = Buffer.concat([held, bytes.subarray(0, put)]);
            });
            const first = tryRead(own.readFd, Buffer.alloc(Math.max(taken, 1)), taken);
            if (typeof first === 'number') held = held.subarray(first);
            expect(peekPipe(own.readFd).equals(held)).toBe(true);
            expect(peekPipe(own.readFd).equals(held)).toBe(true);
            const rest = Buffer.alloc(held.length + 1);
            const got = held.length === 0 ? 0 : tryRead(own.readFd, rest, rest.length);
            expect(got).toBe(held.length);
            expect(rest.subarray(0, held.length).equals(held)).toBe(true);
          } finally {
            closeFd(own.readFd);
            closeFd(own.writeFd);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test('never gives a part for the whole: a user at the limit of pipe memory is told', async () => {
    // Beyond pipe-user-pages-soft a new pipe has two pages, too few for the copy.
    const answer = await askScript(
      `
      import { makePipe, peekPipe, setNonblocking, tryWrite } from '${moduleUrl('linux/fds.js')}';
      const full = makePipe();
      setNonblocking(full.writeFd);
      const held = tryWrite(full.writeFd, Buffer.alloc(60000, 'x'), 60000);
      const limit = Number((await import('node:fs')).readFileSync('/proc/sys/fs/pipe-user-pages-soft', 'utf8'));
      for (let pages = 0; pages <= limit + 64; pages += 16) makePipe();
      let outcome;
      try { outcome = peekPipe(full.readFd).length; } catch (error) { outcome = error.message; }
      console.log(JSON.stringify({ held, outcome }));
      `,
      process.getuid?.() === 0 ? ['setpriv', '--bounding-set=-sys_resource,-sys_admin', '--inh-caps=-all'] : [],
    );
    // Other processes of this user may have used the limit up before: then the first pipe is a small one, and copied whole.
    const { held, outcome } = answer as { held: number; outcome: number | string };
    if (held < 60000) expect(outcome).toBe(held);
    else expect(outcome).toContain('pipe');
  });
});

describe('closeStrangersOnExec', () => {
  test('keeps what the caller left open from programs that are started', async () => {
    const answer = await askScript(
      `
      import { openSync, readdirSync } from 'node:fs';
      import { execFileSync } from 'node:child_process';
      import { libc } from '${moduleUrl('linux/libc.js')}';
      import { closeStrangersOnExec } from '${moduleUrl('linux/fds.js')}';
      const dup = libc.func('int dup(int fd)');
      for (let i = 0; i < 5; i++) dup(openSync('/dev/null', 'r'));
      const list = () => execFileSync('/bin/ls', ['/proc/self/fd'], { encoding: 'utf8' }).trim().split('\\n').length;
      const before = list();
      closeStrangersOnExec();
      console.log(JSON.stringify([before >= 9, list()]));
      `,
    );
    // Only 0, 1, 2 and the directory that ls reads are left.
    expect(answer).toEqual([true, 4]);
  });
});
