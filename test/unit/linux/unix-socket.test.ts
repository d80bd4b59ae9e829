// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { existsSync, fstatSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd, makePipe } from '../../../src/linux/fds.js';
import { acceptUnix, listenUnix, receive } from '../../../src/linux/unix-socket.js';
import { connectUnix, makeSocketPair, sendWithFds } from './scm.js';
import { makeDirectory } from './support.js';

describe('a listening socket', () => {
  test('replaces what lies at its path, and accepts without blocking', () => {
    const path = join(makeDirectory(), 'sock');
    writeFileSync(path, 'stale');
    const listening = listenUnix(path);
    expect(acceptUnix(listening)).toBe('again');
    const client = connectUnix(path);
    const server = acceptUnix(listening);
    expect(typeof server).toBe('number');
    expect(receive(Number(server), Buffer.alloc(1), 1)).toBe('again');
    for (const fd of [listening, client, Number(server)]) closeFd(fd);
  });

  test('is refused where its path is too long or its directory missing, with the path', () => {
    expect(() => listenUnix(`/tmp/${'x'.repeat(120)}`)).toThrow(/bind: ENAMETOOLONG/);
    const missing = join(makeDirectory(), 'no', 'sock');
    expect(() => listenUnix(missing)).toThrow(/bind: ENOENT/);
    expect(existsSync(missing)).toBe(false);
  });
});

describe('receive', () => {
  test('takes no byte beyond what was asked for, and a descriptor with its own byte', () => {
    const [a, b] = makeSocketPair();
    const pipe = makePipe();
    const into = Buffer.alloc(10);
    sendWithFds(a, Buffer.from('abc'), []);
    sendWithFds(a, Buffer.from('F'), [pipe.readFd]);
    sendWithFds(a, Buffer.from('def'), []);
    expect(receive(b, into, 2)).toEqual({ length: 2, fd: -1 });
    expect(receive(b, into, 1)).toEqual({ length: 1, fd: -1 });
    const carried = receive(b, into, 1);
    if (carried === 'again') throw new Error('nothing came');
    expect(carried.length).toBe(1);
    expect(fstatSync(carried.fd).ino).toBe(fstatSync(pipe.readFd).ino);
    expect(receive(b, into, 10)).toEqual({ length: 3, fd: -1 });
    closeFd(a);
    expect(receive(b, into, 10)).toEqual({ length: 0, fd: -1 });
    for (const fd of [b, carried.fd, pipe.readFd, pipe.writeFd]) closeFd(fd);
    expect(() => receive(-1, into, 1)).toThrow(/recvmsg: EBADF/);
  });
});
