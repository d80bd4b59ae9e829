// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { once } from 'node:events';
import { statSync, writeFileSync } from 'node:fs';
import { type Socket, connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { FastFreezeError } from '../../../src/base/errors.js';
import type { CheckpointResult, JobStatus, Progress } from '../../../src/engine/config.js';
import { readStatus, requestCheckpoint, waitIdle } from '../../../src/engine/control-client.js';
import { lineSplitter } from '../../../src/engine/control-protocol.js';
import { type ControlHandlers, type ControlServer, serveControl } from '../../../src/engine/control-server.js';
import { readLinger } from '../../../src/engine/linger.js';
import { ASSUMED_PACE } from '../../../src/engine/pace.js';
import { type JobDirectory, claimJob, readToken, releaseJob } from '../../../src/engine/state.js';
import { until } from '../../support/until.js';
import { makeDirectory, within } from '../linux/support.js';

jest.setTimeout(20_000);

const result: CheckpointResult = {
  imageUrl: 'file:/i',
  generation: 3,
  rawBytes: 10,
  storedBytes: 5,
  frozenMs: 1,
  durableMs: 2,
  leftRunning: false,
  advice: [],
  shards: [],
  encrypted: false,
  files: null,
  carried: null,
  pace: ASSUMED_PACE,
};
const status: JobStatus = {
  name: 'job',
  state: 'running',
  imageUrl: 'file:/i',
  command: ['x'],
  startedAt: '2026-01-01T00:00:00.000Z',
  uptimeSeconds: 1,
  restoredGeneration: null,
  launcherPid: 1,
  appPid: 1000,
  processes: [],
  replacedFiles: [],
  residentBytes: 0,
  cpuSeconds: 0,
  outputBytes: 0,
  lastCheckpoint: null,
  lastFailure: null,
  lease: null,
  clockOffsets: { monotonicSeconds: 0, boottimeSeconds: 0 },
  recordsMetrics: false,
  pace: null,
};
const progress: Progress = { phase: 'dump', doneBytes: 1, storedBytes: 1, totalBytes: 2, elapsedMs: 5 };

let job: JobDirectory;
let server: ControlServer;
let handlers: ControlHandlers;
let signals: AbortSignal[];
const sockets: Socket[] = [];

beforeEach(async () => {
  process.env['FF_STATE_DIR'] = join(makeDirectory(), 's');
  job = claimJob('job');
  signals = [];
  handlers = {
    checkpoint: async (_, tell, signal) => {
      signals.push(signal);
      tell(progress);
      await Promise.resolve();
      return result;
    },
    idle: () => Promise.resolve(),
    status: () => status,
  };
  server = await serveControl(job.path, {
    checkpoint: (...words) => handlers.checkpoint(...words),
    idle: (signal) => handlers.idle(signal),
    status: () => handlers.status(),
  });
});
afterEach(async () => {
  sockets.splice(0).forEach((socket) => socket.destroy());
  await server.close();
  releaseJob(job);
  delete process.env['FF_STATE_DIR'];
});

/** Send text over a connection of its own; what comes back until the server ends it. */
async function talk(...pieces: string[]): Promise<string> {
  const socket = open();
  let text = '';
  socket.on('data', (piece: string) => (text += piece));
  const closed = once(socket, 'close');
  for (const piece of pieces) {
    socket.write(piece);
    await sleep(2);
  }
  await within('the end', closed);
  return text;
}

function open(): Socket {
  const socket = connect(join(job.path, 'control.sock'));
  sockets.push(socket);
  socket.setEncoding('utf8');
  socket.on('error', () => undefined);
  return socket;
}

const ask = (op: string, token = readToken(job.path)): string => `${JSON.stringify({ token, op, request: {} })}\n`;

describe('the control socket', () => {
  test('and its token are for the owner only', () => {
    expect(statSync(join(job.path, 'control.sock')).mode & 0o777).toBe(0o600);
    expect(statSync(join(job.path, 'token')).mode & 0o777).toBe(0o600);
    expect(readToken(job.path)).toMatch(/^[0-9a-f]{48}$/);
  });

  test('answers its clients: status, wait, and a checkpoint with its progress', async () => {
    expect(await readStatus('job')).toEqual(status);
    await waitIdle(undefined, 5_000);
    const seen: Progress[] = [];
    const got = await requestCheckpoint('job', { leaveRunning: true, source: 'test' }, (one) => seen.push(one));
    expect(got).toEqual(result);
    expect(seen).toEqual([progress]);
  });

  test('closes when those who know of a checkpoint have ended, not before, nor much later', async () => {
    const request = { leaveRunning: false, source: 'test' };
    // One that goes on after its answer is not waited for.
    await requestCheckpoint('job', request, () => undefined);
    const held = connect({ path: join(job.path, 'control.sock'), allowHalfOpen: true });
    sockets.push(held);
    held.write(ask('checkpoint'));
    await within('the answer', once(held.resume(), 'end'));
    let isClosed = false;
    const closing = server.close().then(() => (isClosed = true));
    await sleep(50);
    expect(isClosed).toBe(false);
    held.destroy();
    await within('the end', closing);
    server = await serveControl(job.path, handlers);
    await requestCheckpoint('job', request, () => undefined, { untilExit: true });
    await within('the end of its patience', server.close());
  });

  test('tells a failure with code, reason and hint', async () => {
    handlers.checkpoint = () =>
      Promise.reject(
        new FastFreezeError({ code: 'unsupported', op: 'freeze', subject: 'it', reason: 'no', hint: 'yes' }),
      );
    const asked = requestCheckpoint('job', { leaveRunning: true, source: 'test' }, () => undefined);
    await expect(asked).rejects.toMatchObject({ code: 'unsupported', message: 'cannot freeze it: no', hint: 'yes' });
  });

  test.each([
    ['another token', () => '0'.repeat(48)],
    ['a token that is shorter', () => readToken(job.path).slice(1)],
    ['a token that is longer', () => `${readToken(job.path)}0`],
    ['none', () => ''],
  ])('refuses %s', async (_, token) => {
    const reply = JSON.parse(await talk(ask('checkpoint', token()))) as unknown;
    expect(reply).toMatchObject({ type: 'error', error: { code: 'usage' } });
    expect(signals.length).toBe(0);
  });

  test.each(['nonsense\n', 'null\n', '[]\n', '{"token": 5, "op": "checkpoint"}\n', '{"token": ["a"]}\n', '\0\0\0\n'])(
    'refuses %j, and goes on',
    async (text) => {
      expect(JSON.parse(await talk(text))).toMatchObject({ type: 'error' });
      expect(signals.length).toBe(0);
      expect(await readStatus('job')).toEqual(status);
    },
  );

  test('does nothing for half a line, and all of it when the rest comes', async () => {
    const line = ask('status');
    const half = open();
    half.write(line.slice(0, 20));
    await sleep(30);
    half.end();
    await within('the end', once(half.resume(), 'close'));
    const pieces = line.match(/[\s\S]{1,7}/g) ?? [];
    expect(JSON.parse(await talk(...pieces))).toEqual({ type: 'status', status });
  });

  test('hangs up on a line that is too long', async () => {
    expect(await talk('x'.repeat(40_000), 'x'.repeat(40_000))).toBe('');
    expect(await readStatus('job')).toEqual(status);
  });

  test('answers one request of a connection only', async () => {
    const replies = (await talk(ask('status') + ask('status') + ask('checkpoint'))).trim().split('\n');
    expect(replies.length).toBe(1);
    expect(signals.length).toBe(0);
  });

  test('refuses an operation that it does not know', async () => {
    expect(JSON.parse(await talk(ask('explode')))).toMatchObject({ type: 'error' });
  });

  test('calls off what was asked by a client that has gone, and nothing of the others', async () => {
    let finish: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (finish = resolve));
    handlers.checkpoint = async (_, _tell, signal) => {
      signals.push(signal);
      await held;
      return result;
    };
    const [first, second] = [open(), open()];
    first.write(ask('checkpoint'));
    await until('the first', () => signals.length === 1);
    second.write(ask('checkpoint'));
    await until('the second', () => signals.length === 2);
    let answer = '';
    second.on('data', (piece: string) => (answer += piece));
    first.destroy();
    await until('the abort', () => signals[0]?.aborted === true);
    expect(signals[1]?.aborted).toBe(false);
    finish();
    await until('the answer', () => answer.endsWith('\n'));
    expect(JSON.parse(answer)).toEqual({ type: 'checkpoint', result });
  });

  test('serves many clients at once', async () => {
    const answers = await Promise.all(Array.from({ length: 60 }, () => readStatus('job')));
    expect(answers.every((one) => one.name === 'job')).toBe(true);
  });
});

describe('a client', () => {
  test('gives up waiting in time', async () => {
    handlers.idle = () => new Promise(() => undefined);
    await expect(within('the time-out', waitIdle('job', 150))).rejects.toMatchObject({ code: 'aborted' });
  });

  test('waits for a job that has no socket yet', async () => {
    const late = claimJob('late');
    const asked = readStatus('late');
    await sleep(120);
    const control = await serveControl(late.path, { ...handlers });
    expect((await within('the answer', asked)).name).toBe('job');
    await control.close();
    releaseJob(late);
  });

  test('that was told of a checkpoint has ended for as long as was wished before the job ends', async () => {
    const lingerMs = 300;
    const last = claimJob('last');
    const control = await serveControl(last.path, handlers, lingerMs);
    const askedMs = performance.now();
    await requestCheckpoint('last', { leaveRunning: false, source: 'test' }, () => undefined);
    await within('the end', control.close());
    // Timers may come a moment early.
    expect(performance.now() - askedMs).toBeGreaterThan(lingerMs - 5);
    releaseJob(last);
  });

  test('tells a job that ends before it answers', async () => {
    // A server that hangs up, as one that is killed does.
    writeFileSync(join(job.path, 'token'), 'x'.repeat(70_000));
    await expect(within('the failure', waitIdle('job', 5_000))).rejects.toMatchObject({ code: 'app' });
  });
});

describe('lines', () => {
  test('are the same however the text is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), fc.string(), fc.array(fc.nat({ max: 20 })), (lines, rest, cuts) => {
        const clean = lines.map((line) => line.replaceAll('\n', ''));
        const seen: string[] = [];
        const split = lineSplitter((line) => seen.push(line));
        let text = clean.map((line) => `${line}\n`).join('') + rest.replaceAll('\n', '');
        for (const cut of cuts) {
          split(text.slice(0, cut));
          text = text.slice(cut);
        }
        split(text);
        expect(seen).toEqual(clean.filter((line) => line !== ''));
      }),
    );
  });
});

describe('FF_LINGER_MS', () => {
  test('is a number of milliseconds, or refused', () => {
    expect(readLinger({})).toEqual({});
    expect(readLinger({ FF_LINGER_MS: '1000' })).toEqual({ lingerMs: 1000 });
    for (const text of ['-1', '1s', '60001', '0x10'])
      expect(() => readLinger({ FF_LINGER_MS: text })).toThrow(
        expect.objectContaining({ code: 'usage', subject: `FF_LINGER_MS=${text}` }),
      );
  });
});
