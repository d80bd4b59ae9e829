// SPDX-License-Identifier: Apache-2.0
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { receiveBundle } from '../../../../src/criu/runtime/receive.js';

const CONTENT = Buffer.alloc(300_000, 'fastfreeze');
const SUM = createHash('sha256').update(CONTENT).digest('hex');

let folder = '';
let source = '';
let target = '';
let base = '';
let server: Server;
let count = 0;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ff-receive-'));
  source = join(folder, 'bundle');
  writeFileSync(source, CONTENT);
  server = createServer((request, response) => {
    if (request.url === '/moved') response.writeHead(302, { location: '/bundle' }).end();
    else if (request.url === '/bundle') response.end(CONTENT);
    else if (request.url === '/short') {
      response.writeHead(200, { 'content-length': CONTENT.length });
      response.write(CONTENT.subarray(0, 1000), () => response.destroy());
    } else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true });
});
beforeEach(() => {
  target = join(folder, `copy-${++count}`);
});

describe('receiveBundle', () => {
  it('copies from a path, a file URL and a server, following redirects', async () => {
    for (const from of [source, pathToFileURL(source).href, `${base}/bundle`, `${base}/moved`]) {
      rmSync(target, { force: true });
      await receiveBundle(from, target, SUM.toUpperCase());
      expect(readFileSync(target).equals(CONTENT)).toBe(true);
    }
  });

  it.each([
    ['a wrong sum', () => source, '0'.repeat(64), 'its SHA-256 is'],
    ['no sum at all', () => source, 'abc', '64 hexadecimal digits'],
    ['a missing file', () => `${source}.missing`, SUM, 'ENOENT'],
    ['a device', () => '/dev/zero', SUM, 'not a file'],
    ['another protocol', () => 'gopher://x/y', SUM, 'are understood'],
    ['an answer of 404', () => `${base}/none`, SUM, 'answered 404'],
    ['an answer that breaks off', () => `${base}/short`, SUM, 'cannot fetch'],
  ])('refuses %s', async (_what, from, sum, message) => {
    await expect(receiveBundle(from(), target, sum)).rejects.toThrow(message);
  });

  it('stops when asked to', async () => {
    await expect(receiveBundle(source, target, SUM, AbortSignal.abort())).rejects.toThrow('stopped on request');
  });
});
