// SPDX-License-Identifier: Apache-2.0
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fstatSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd } from '../../../src/linux/fds.js';
import { readAnswer, unixPeers } from '../../../src/linux/unix-diag.js';
import { acceptUnix, listenUnix, reachesDatagramSocket } from '../../../src/linux/unix-socket.js';
import { connectUnix, makeSocketPair } from './scm.js';
import { makeDirectory } from './support.js';

const inode = (fd: number): number => fstatSync(fd).ino;

test('the kernel tells who is connected to whom, and of nobody who is not', () => {
  const pair = makeSocketPair();
  const listening = listenUnix(join(makeDirectory(), 'sock'));
  const peers = unixPeers();
  expect(peers.get(inode(pair[0]))).toBe(inode(pair[1]));
  expect(peers.get(inode(pair[1]))).toBe(inode(pair[0]));
  expect(peers.has(inode(listening))).toBe(false);
  for (const fd of [...pair, listening]) closeFd(fd);
});

test('a connection over a path has two ends as well', () => {
  const path = join(makeDirectory(), 'sock');
  const listening = listenUnix(path);
  const client = connectUnix(path);
  const server = Number(acceptUnix(listening));
  expect(unixPeers().get(inode(client))).toBe(inode(server));
  // A stream listens there, no datagram socket.
  expect(reachesDatagramSocket(Buffer.from(path))).toBe(false);
  expect(reachesDatagramSocket(Buffer.from('/no/such/socket'))).toBe(false);
  expect(reachesDatagramSocket(Buffer.alloc(200, 'x'))).toBe(false);
  for (const fd of [listening, client, server]) closeFd(fd);
});

test('an answer of any bytes is read to an end', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      expect(typeof readAnswer(Buffer.from(bytes), new Map())).toBe('boolean');
    }),
  );
});
