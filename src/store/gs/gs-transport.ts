// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import type { GaxiosOptions, GaxiosPromise, GaxiosResponse } from 'gaxios';
import type { Storage } from '@google-cloud/storage';
import { type Agents, createAgents } from '../object/agents.js';
import { type Pieces, sizeOf } from '../pieces.js';
import { Gaxios } from './sdk.js';

export interface BulkRequest {
  readonly method: 'GET' | 'PUT' | 'DELETE';
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Pieces;
  /** Give a good answer's body as a stream, not as what its JSON says. */
  readonly asStream?: boolean;
  /** Beside 200 to 299. */
  readonly alsoGood?: readonly number[];
  readonly signal: AbortSignal;
}

export type Send = (request: BulkRequest) => Promise<GaxiosResponse<unknown>>;

export interface Transport {
  readonly send: Send;
  /** See `Agents`. */
  closeIdle(): void;
}

/** A connection on which nothing moves for so long is given up. */
const IDLE_TIMEOUT_MS = 30_000;
const MAX_CONNECTIONS = 16;

/**
 * Sends what carries an image's bytes, with the SDK's credentials and its HTTP client (so its proxies and token refresh),
 * but over Node's own HTTP: the SDK's can neither be ended by a signal nor notices that a body broke off half way.
 */
export function createTransport(storage: Storage): Transport {
  // As the SDK: an emulator is told no secrets.
  const sender: { request(options: GaxiosOptions): GaxiosPromise<unknown> } = storage.customEndpoint
    ? new Gaxios()
    : storage.authClient;
  const agents = createAgents({ keepAlive: true, maxSockets: MAX_CONNECTIONS });
  const send: Send = ({ method, url, headers, body, asStream = false, alsoGood = [], signal }) =>
    sender.request({
      method,
      url,
      headers: { ...headers },
      signal,
      validateStatus: (status) => isGood(status) || alsoGood.includes(status),
      adapter: <T>(options: GaxiosOptions) => exchange(options, body, agents, asStream) as GaxiosPromise<T>,
    });
  return { send, closeIdle: () => agents.closeIdle() };
}

async function exchange(
  options: GaxiosOptions,
  body: Pieces | undefined,
  agents: Agents,
  asStream: boolean,
): Promise<GaxiosResponse<unknown>> {
  const url = new URL(String(options.url));
  const isPlain = url.protocol === 'http:';
  // A proxy's agent comes from gaxios.
  const agent = (options.agent as http.Agent | undefined) ?? (isPlain ? agents.http : agents.https);
  const request = (isPlain ? http : https).request(url, {
    method: options.method ?? 'GET',
    headers: { ...options.headers, ...(options.method === 'GET' ? {} : { 'Content-Length': sizeOf(body ?? []) }) },
    agent,
    signal: options.signal as AbortSignal,
    timeout: IDLE_TIMEOUT_MS,
  });
  request.on('timeout', () => {
    request.destroy(Object.assign(new Error('the connection stood still'), { code: 'ETIMEDOUT' }));
  });
  const answered = once(request, 'response') as Promise<[http.IncomingMessage]>;
  // All of it is there already: to wait until a piece has left would save no memory.
  for (const piece of body ?? []) request.write(piece);
  request.end();
  const [response] = await answered;
  // A connection that breaks while nobody reads is told to whoever reads next, not to the process.
  response.on('error', () => undefined);
  const status = response.statusCode ?? 0;
  return {
    config: options,
    status,
    statusText: response.statusMessage ?? '',
    headers: response.headers,
    data: asStream && isGood(status) ? response : await textOf(response),
    request: { responseURL: url.href },
  };
}

/** Answers are small; a body that breaks off is an error. */
async function textOf(response: http.IncomingMessage): Promise<unknown> {
  const pieces: Buffer[] = [];
  for await (const piece of response as AsyncIterable<Buffer>) pieces.push(piece);
  const text = Buffer.concat(pieces).toString();
  if (response.headers['content-type']?.startsWith('application/json') !== true) return text;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

function isGood(status: number): boolean {
  return status >= 200 && status < 300;
}
