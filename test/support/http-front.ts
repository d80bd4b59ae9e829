// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** An answer of the front's own, instead of the server's. */
export interface Refusal {
  readonly status: number;
  /** S3's name for it. */
  readonly code: string;
}

/** Stands before an S3 server and answers some requests itself, as another kind of service, or one that is overloaded, would. */
export interface HttpFront {
  readonly url: string;
  /** Asked for every request. */
  refuse: (asked: IncomingMessage) => Refusal | undefined;
  stop(): Promise<void>;
}

export async function startHttpFront(target: string): Promise<HttpFront> {
  const server = createServer((asked, answer) => {
    const refusal = front.refuse(asked);
    if (refusal === undefined) forward(target, asked, answer);
    else refuseWith(refusal, asked, answer);
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

function forward(target: string, asked: IncomingMessage, answer: ServerResponse): void {
  const { port } = new URL(target);
  const passed = request(
    { host: '127.0.0.1', port, method: asked.method, path: asked.url, headers: asked.headers, agent: false },
    (got) => {
      answer.writeHead(got.statusCode ?? 502, got.headers);
      got.pipe(answer);
    },
  );
  passed.on('error', () => answer.destroy());
  answer.on('close', () => passed.destroy());
  asked.pipe(passed);
}

function refuseWith({ status, code }: Refusal, asked: IncomingMessage, answer: ServerResponse): void {
  const body = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>refused by the test</Message></Error>`;
  // What was sent must be read: else the connection is reset before the answer is.
  asked.resume();
  asked.once('end', () => {
    answer.writeHead(status, { 'content-type': 'application/xml', 'content-length': Buffer.byteLength(body) });
    answer.end(asked.method === 'HEAD' ? undefined : body);
  });
}
