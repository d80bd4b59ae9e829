// SPDX-License-Identifier: Apache-2.0
import { createHash, timingSafeEqual } from 'node:crypto';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Logger } from '../base/log.js';
import { type Answer, Refusal, checkpointAnswer, errorAnswer, runAnswer } from './answer.js';
import type { Controller } from './controller.js';
import { parseCheckpointRequest, parseRunRequest } from './request.js';

export interface HttpOptions {
  readonly controller: Controller;
  /** Demanded of every request but that for `/healthz`. */
  readonly token?: string;
  readonly log: Logger;
  /** How long a request may take to come in whole. */
  readonly requestTimeoutMs?: number;
  /** How long closing waits for answers that are under way. */
  readonly lastAnswersMs?: number;
}

export interface HttpServer {
  readonly server: Server;
  /** Take no more; whoever has been understood gets an answer, unless it takes too long. */
  close(): Promise<void>;
}

const MAX_BODY_BYTES = 64 * 1024;
/** What is read, and thrown away, of a body that is too long, so that its sender gets to read why. */
const MAX_DISCARDED_BYTES = 1024 * 1024;
const MAX_CONNECTIONS = 64;
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
const LAST_ANSWERS_MS = 5_000;

/** The requests that there are; who asks for one learns of a job only what its owner may know. */
export function createHttpServer(options: HttpOptions): HttpServer {
  const { log, requestTimeoutMs = REQUEST_TIMEOUT_MS, lastAnswersMs = LAST_ANSWERS_MS } = options;
  const answering = new Set<Promise<void>>();
  const server = createServer(
    {
      headersTimeout: Math.min(HEADERS_TIMEOUT_MS, requestTimeoutMs),
      requestTimeout: requestTimeoutMs,
      connectionsCheckingInterval: 1_000,
      keepAliveTimeout: 5_000,
    },
    (request, response) => {
      readBody(request).then(
        (body) => {
          const done = serve(request, body, response, options);
          answering.add(done);
          void done.finally(() => answering.delete(done));
        },
        // The client has gone in the middle of its request.
        (error: unknown) => log.debug(`a request broke off: ${error instanceof Error ? error.message : String(error)}`),
      );
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  server.on('clientError', refuseGarbage);
  return {
    server,
    close: async () => {
      server.close();
      let timer: NodeJS.Timeout | undefined;
      await Promise.race([
        Promise.all(answering),
        new Promise((resolve) => (timer = setTimeout(resolve, lastAnswersMs))),
      ]);
      clearTimeout(timer);
      server.closeAllConnections();
    },
  };
}

/** Never rejects. */
async function serve(
  request: IncomingMessage,
  body: Body,
  response: ServerResponse,
  options: HttpOptions,
): Promise<void> {
  const answer = await answerTo(request, body, options).catch(errorAnswer);
  options.log.debug(`${request.method ?? ''} ${JSON.stringify(request.url ?? '')}: ${answer.status}`);
  await send(request, response, answer);
}

type Route = (body: string, controller: Controller) => Promise<Answer>;

const ROUTES: Readonly<Record<string, Readonly<Record<string, Route>>>> = {
  '/run': { POST: async (body, controller) => runAnswer(await controller.run(parseRunRequest(body))) },
  '/checkpoint': {
    POST: async (body, controller) => checkpointAnswer(await controller.checkpoint(parseCheckpointRequest(body))),
  },
  '/status': {
    GET: async (_, controller) => {
      const status = await controller.status();
      return { status: 200, text: `${JSON.stringify(status, null, 2)}\n`, json: status };
    },
  },
};

async function answerTo(request: IncomingMessage, body: Body, options: HttpOptions): Promise<Answer> {
  const path = (request.url ?? '').split('?')[0] ?? '';
  const method = request.method === 'HEAD' ? 'GET' : (request.method ?? '');
  // It says that we live and no more: who only asks that need not be trusted with a token.
  const isHealth = path === '/healthz';
  if (!isHealth && options.token !== undefined) checkToken(request, options.token);
  const methods: Readonly<Record<string, Route>> | undefined = isHealth
    ? { GET: healthy }
    : Object.hasOwn(ROUTES, path)
      ? ROUTES[path]
      : undefined;
  if (methods === undefined) throw new Refusal(404, `there is no ${JSON.stringify(path)}`);
  const route = Object.hasOwn(methods, method) ? methods[method] : undefined;
  if (route === undefined) {
    const allow = Object.keys(methods).map((name) => (name === 'GET' ? 'GET, HEAD' : name));
    throw new Refusal(405, `${path} takes ${allow.join(', ')}`, { Allow: allow.join(', ') });
  }
  if (body === 'too long') throw new Refusal(413, `the body is over ${MAX_BODY_BYTES} bytes`);
  return await route(textOf(body), options.controller);
}

const healthy: Route = () => Promise.resolve({ status: 200, text: 'ok\n', json: { ok: true } });

/** By digests of one length: how long the comparison takes tells nothing of the token. */
function checkToken(request: IncomingMessage, token: string): void {
  const given = /^Bearer +(\S+) *$/iu.exec(request.headers.authorization ?? '')?.[1];
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  if (given !== undefined && timingSafeEqual(digest(given), digest(token))) return;
  const reason = given === undefined ? 'a bearer token is needed' : 'the token is not the right one';
  throw new Refusal(401, reason, { 'WWW-Authenticate': 'Bearer' });
}

type Body = Buffer | 'too long';

async function readBody(request: IncomingMessage): Promise<Body> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += piece.length;
    if (length <= MAX_BODY_BYTES) pieces.push(piece);
    if (length > MAX_DISCARDED_BYTES) break;
  }
  return length > MAX_BODY_BYTES ? 'too long' : Buffer.concat(pieces);
}

function textOf(body: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(body);
  } catch {
    throw new Refusal(400, 'the body is not text in UTF-8');
  }
}

/** Resolves once it is written, or nobody is there to read it. */
async function send(request: IncomingMessage, response: ServerResponse, answer: Answer): Promise<void> {
  const asJson = /\bapplication\/json\b/iu.test(request.headers.accept ?? '');
  const text = asJson ? `${JSON.stringify(answer.json)}\n` : answer.text;
  response.writeHead(answer.status, {
    'Content-Type': asJson ? 'application/json' : 'text/plain; charset=utf-8',
    'Content-Length': Buffer.byteLength(text),
    ...answer.headers,
    // What is left of a body that was not read whole must not pass for the next request.
    ...(request.complete ? {} : { Connection: 'close' }),
  });
  const { socket } = request;
  // The client has gone while it waited: what has been closed already says so no second time.
  if (socket.destroyed) return;
  await new Promise<void>((resolve) => {
    const over = (): void => {
      socket.off('close', over);
      resolve();
    };
    response.once('close', over);
    // An answer that stands behind another one on its connection never gets to hear of the end.
    socket.once('close', over);
    response.end(text);
  });
}

/** What is no HTTP, too long in its head or too slow has no request to answer. */
function refuseGarbage(error: NodeJS.ErrnoException, socket: Duplex): void {
  const status: Readonly<Record<string, string>> = {
    HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
    ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
  };
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  socket.end(
    `HTTP/1.1 ${status[error.code ?? ''] ?? '400 Bad Request'}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
  );
}
