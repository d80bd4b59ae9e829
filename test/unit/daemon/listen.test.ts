// SPDX-License-Identifier: Apache-2.0
import { describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { type Server, connect, createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { listen } from '../../../src/daemon/listen.js';
import { writeStatusFile } from '../../../src/daemon/status-file.js';
import { askScript, makeDirectory, moduleUrl, within } from '../linux/support.js';

jest.setTimeout(30_000);

const closed = async (server: Server): Promise<void> => {
  server.close();
  await once(server, 'close');
};

async function connects(path: string): Promise<boolean> {
  const socket = connect(path);
  return await new Promise((resolve) => {
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** What a process that was killed while it listened leaves. */
async function leaveSocket(path: string): Promise<void> {
  await askScript(`
    import { createServer } from 'node:net';
    createServer().listen(${JSON.stringify(path)}, () => { console.log('{}'); process.exit(); });`);
}

describe('a UNIX socket', () => {
  test('is its owner’s alone, and is taken away by who made it', async () => {
    const path = join(makeDirectory(), 'daemon.sock');
    const server = createServer();
    const mask = process.umask(0);
    const listening = await listen(server, { kind: 'socket', path }).finally(() => process.umask(mask));
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await connects(path)).toBe(true);
    expect(readdirSync(dirname(path))).toEqual(['daemon.sock']);
    listening.remove();
    await closed(server);
    expect(readdirSync(dirname(path))).toEqual([]);
  });

  test('of a dead daemon is replaced; that of a live one, and what is no socket, stay', async () => {
    const path = join(makeDirectory(), 'daemon.sock');
    await leaveSocket(path);
    expect(await connects(path)).toBe(false);
    const first = createServer();
    const listening = await listen(first, { kind: 'socket', path });
    expect(await connects(path)).toBe(true);
    await expect(listen(createServer(), { kind: 'socket', path })).rejects.toMatchObject({
      code: 'conflict',
      reason: 'another daemon listens there',
    });
    expect(await connects(path)).toBe(true);
    await closed(first);
    // Somebody else is there meanwhile.
    const second = createServer();
    const other = await listen(second, { kind: 'socket', path });
    listening.remove();
    expect(await connects(path)).toBe(true);
    other.remove();
    await closed(second);
    writeFileSync(path, 'precious');
    await expect(listen(createServer(), { kind: 'socket', path })).rejects.toMatchObject({ code: 'conflict' });
    expect(readFileSync(path, 'utf8')).toBe('precious');
  });

  test('is taken by one of several that start together', async () => {
    const path = join(makeDirectory(), 'daemon.sock');
    await leaveSocket(path);
    const script = `
      import { createServer } from 'node:net';
      import { listen } from '${moduleUrl('daemon/listen.js')}';
      const server = createServer();
      const got = await listen(server, { kind: 'socket', path: ${JSON.stringify(path)} }).then(() => 'listens', (error) => error.code);
      console.log(JSON.stringify(got));
      // Until all have tried.
      if (got === 'listens') setTimeout(() => process.exit(), 2_000);`;
    const answers = await within('all', Promise.all(Array.from({ length: 4 }, () => askScript(script))));
    expect(answers.sort()).toEqual(['conflict', 'conflict', 'conflict', 'listens']);
  });

  test('may have a long path; a folder that is not there is told', async () => {
    const folder = join(makeDirectory(), 'x'.repeat(100), 'y'.repeat(100));
    const path = join(folder, 'daemon.sock');
    await expect(listen(createServer(), { kind: 'socket', path })).rejects.toMatchObject({
      code: 'host',
      reason: expect.stringContaining('does not exist') as unknown,
    });
    mkdirSync(folder, { recursive: true });
    const server = createServer();
    const listening = await listen(server, { kind: 'socket', path });
    expect(statSync(path).isSocket()).toBe(true);
    listening.remove();
    await closed(server);
  });
});

describe('a port', () => {
  test('is told as a URL; one that is taken is refused', async () => {
    const server = createServer();
    const { where } = await listen(server, { kind: 'tcp', host: '127.0.0.1', port: 0 });
    const port = Number(/^http:\/\/127\.0\.0\.1:(\d+)$/.exec(where)?.[1]);
    await expect(listen(createServer(), { kind: 'tcp', host: '127.0.0.1', port })).rejects.toMatchObject({
      code: 'conflict',
      reason: 'somebody else listens there',
    });
    await expect(listen(createServer(), { kind: 'tcp', host: '192.0.2.1', port: 0 })).rejects.toMatchObject({
      code: 'host',
    });
    await closed(server);
  });
});

describe('the status file', () => {
  test('holds one digit and is replaced in one step', () => {
    const folder = makeDirectory();
    const path = join(folder, 'status');
    for (const [state, digit] of [
      ['standby', '0'],
      ['running', '1'],
      ['checkpointed', '2'],
    ] as const) {
      writeStatusFile(path, state);
      expect(readFileSync(path, 'utf8')).toBe(digit);
    }
    expect(readdirSync(folder)).toEqual(['status']);
    expect(() => writeStatusFile(join(folder, 'none', 'status'), 'standby')).toThrow(
      /cannot write the status file .*ENOENT/,
    );
  });
});
