// SPDX-License-Identifier: Apache-2.0
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { chmodSync, renameSync, writeFileSync } from 'node:fs';
import { type Server, type Socket, createServer } from 'node:net';
import { join } from 'node:path';
import { FastFreezeError, toErrorRecord } from '../base/errors.js';
import { withSocketPath } from '../linux/unix-socket.js';
import type { CheckpointRequest, CheckpointResult, JobStatus, Progress } from './config.js';
import { type ControlReply, type ControlRequest, lineSplitter } from './control-protocol.js';

/** What the supervisor lets clients do. */
export interface ControlHandlers {
  checkpoint(
    request: CheckpointRequest,
    progress: (p: Progress) => void,
    signal: AbortSignal,
  ): Promise<CheckpointResult>;
  /** Resolves when no checkpoint or restore is under way. */
  idle(signal: AbortSignal): Promise<void>;
  status(): JobStatus;
}

export interface ControlServer {
  /**
   * Take no more clients, and wait for those that have been told of a checkpoint: they may want to end before we do. Then, as
   * long as it was asked for, for whoever has yet to be told of their end.
   */
  close(): Promise<void>;
}

const CLIENTS_END_MS = 5_000;

/** Listen on `control.sock` in the job's directory, which only its owner and root can enter. */
export async function serveControl(directory: string, handlers: ControlHandlers, lingerMs = 0): Promise<ControlServer> {
  const token = randomBytes(24).toString('hex');
  writeFileSync(join(directory, 'token'), `${token}\n`, { mode: 0o600 });
  const told = new Map<Socket, Promise<void>>();
  let lastEndMs = -Infinity;
  const server: Server = createServer((socket) =>
    serveClient(socket, token, handlers, () => {
      const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
      told.set(
        socket,
        closed.then(() => {
          told.delete(socket);
          lastEndMs = performance.now();
        }),
      );
    }),
  );
  // Clients find the socket only once it listens: it gets its name last.
  const temporary = join(directory, 'control.tmp');
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    withSocketPath(temporary, (path) => server.listen(path, resolve));
  });
  chmodSync(temporary, 0o600);
  renameSync(temporary, join(directory, 'control.sock'));
  return {
    async close() {
      server.close();
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise((resolve) => (timer = setTimeout(resolve, CLIENTS_END_MS)));
      await Promise.race([Promise.all(told.values()), late]);
      clearTimeout(timer);
      const leftMs = lastEndMs + lingerMs - performance.now();
      if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
    },
  };
}

/** A request larger than this is none. */
const MAX_LINE_BYTES = 64 * 1024;

function serveClient(socket: Socket, token: string, handlers: ControlHandlers, tellsOfCheckpoint: () => void): void {
  const gone = new AbortController();
  let received = 0;
  let asked = false;
  socket.setEncoding('utf8');
  socket.on('error', () => gone.abort());
  socket.on('close', () => gone.abort());
  const split = lineSplitter((line) => {
    if (asked) return;
    asked = true;
    answer(socket, line, token, handlers, gone.signal, tellsOfCheckpoint).then(
      () => socket.end(),
      (error: unknown) => {
        reply(socket, { type: 'error', error: toErrorRecord(error) });
        socket.end();
      },
    );
  });
  socket.on('data', (piece: string) => {
    received += piece.length;
    if (received > MAX_LINE_BYTES) socket.destroy();
    else split(piece);
  });
}

async function answer(
  socket: Socket,
  line: string,
  token: string,
  handlers: ControlHandlers,
  signal: AbortSignal,
  tellsOfCheckpoint: () => void,
): Promise<void> {
  const request = JSON.parse(line) as ControlRequest;
  if (!sameToken(request.token, token)) {
    throw new FastFreezeError({ code: 'usage', op: 'talk to the job', reason: 'the token is not this job’s' });
  }
  switch (request.op) {
    case 'checkpoint': {
      const tell = (progress: Progress): void => reply(socket, { type: 'progress', progress });
      const result = await handlers.checkpoint(request.request, tell, signal);
      if (!socket.destroyed) tellsOfCheckpoint();
      reply(socket, { type: 'checkpoint', result });
      return;
    }
    case 'wait':
      await handlers.idle(signal);
      reply(socket, { type: 'idle' });
      return;
    case 'status':
      reply(socket, { type: 'status', status: handlers.status() });
      return;
    default:
      // A client of another version may know operations that we do not.
      throw new FastFreezeError({
        code: 'usage',
        op: 'talk to the job',
        subject: JSON.stringify((request as { op?: unknown }).op),
        reason: 'it does not know this operation',
        hint: 'use the version of fastfreeze that the job was started with',
      });
  }
}

function reply(socket: Socket, message: ControlReply): void {
  if (!socket.destroyed && socket.writable) socket.write(`${JSON.stringify(message)}\n`);
}

function sameToken(given: unknown, token: string): boolean {
  if (typeof given !== 'string') return false;
  const a = Buffer.from(given);
  const b = Buffer.from(token);
  return a.length === b.length && timingSafeEqual(a, b);
}
