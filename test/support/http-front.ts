// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** An answer of the front's own, instead of the server's. */
export interface Refusal {
  readonly status: number;
  /** The service's name for it. */
  readonly code: string;
}

/**
 * Where an exchange breaks off: before the server is asked; when it has done all, with a reset instead of its answer; or
 * half way through the answer's body, which ends as if that had been all of it.
 */
export type Breakage = 'unasked' | 'unanswered' | 'half-answered';

/** Stands before a server and answers some requests itself, as another kind of service, or one that is overloaded, would. */
export interface HttpFront {
  readonly url: string;
  /** Asked for every request. */
  refuse: (asked: IncomingMessage) => Refusal | Breakage | undefined;
  stop(): Promise<void>;
}

/** Each kind of service has its own words for an error. */
export type Dialect = 's3' | 'gs';

export async function startHttpFront(target: string, dialect: Dialect = 's3'): Promise<HttpFront> {
  const server = createServer((asked, answer) => {
    const refusal = front.refuse(asked);
    if (refusal === 'unasked') asked.socket.resetAndDestroy();
    else if (refusal === undefined || typeof refusal === 'string') forward(target, asked, answer, refusal);
    else refuseWith(refusal, dialect, asked, answer);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const front: HttpFront = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    refuse: () => undefined,
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
  return front;
}

function forward(
  target: string,
  asked: IncomingMessage,
  answer: ServerResponse,
  breakage: Exclude<Breakage, 'unasked'> | undefined,
): void {
  const { port } = new URL(target);
  const passed = request(
    { host: '127.0.0.1', port, method: asked.method, path: asked.url, headers: asked.headers, agent: false },
    (got) => {
      if (breakage !== undefined) return void breakOff(breakage, got, asked, answer);
      answer.writeHead(got.statusCode ?? 502, got.headers);
      got.pipe(answer);
    },
  );
  passed.on('error', () => answer.destroy());
  answer.on('close', () => passed.destroy());
  asked.pipe(passed);
}

async function breakOff(
  breakage: Exclude<Breakage, 'unasked'>,
  got: IncomingMessage,
  asked: IncomingMessage,
  answer: ServerResponse,
): Promise<void> {
  const pieces: Buffer[] = [];
  for await (const piece of got as AsyncIterable<Buffer>) pieces.push(piece);
  const body = Buffer.concat(pieces);
  // Of an answer without a body there is no half.
  if (breakage === 'unanswered' || body.length < 2) return void asked.socket.resetAndDestroy();
  answer.writeHead(got.statusCode ?? 502, got.headers);
  answer.write(body.subarray(0, body.length >> 1), () => asked.socket.destroySoon());
}

function refuseWith({ status, code }: Refusal, dialect: Dialect, asked: IncomingMessage, answer: ServerResponse): void {
  const { type, body } = WORDS[dialect](status, code);
  // What was sent must be read: else the connection is reset before the answer is.
  asked.resume();
  asked.once('end', () => {
    answer.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
    answer.end(asked.method === 'HEAD' ? undefined : body);
  });
}

const MESSAGE = 'refused by the test';

const WORDS: Readonly<Record<Dialect, (status: number, code: string) => { type: string; body: string }>> = {
  s3: (_status, code) => ({
    type: 'application/xml',
    body: `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${MESSAGE}</Message></Error>`,
  }),
  gs: (status, reason) => ({
    type: 'application/json; charset=UTF-8',
    body: JSON.stringify({ error: { code: status, message: MESSAGE, errors: [{ reason, message: MESSAGE }] } }),
  }),
};
