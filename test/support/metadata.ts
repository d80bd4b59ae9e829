// SPDX-License-Identifier: Apache-2.0
// Metadata services of clouds, as far as a machine asks them: real servers on loopback, as strict as the real ones.
import { randomBytes } from 'node:crypto';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface MetadataServer {
  readonly url: string;
  /** Every request: method and path. */
  readonly asked: readonly string[];
  close(): Promise<void>;
}

export interface Imds extends MetadataServer {
  /** `undefined`: 404, as while there is nothing to tell. */
  action: string | undefined;
  rebalance: string | undefined;
  /** `lost`: the answer with the token never arrives, as behind one hop too many. `none`: 404, as without version 2. */
  tokens: 'given' | 'lost' | 'none';
  /** Whether requests without a token are answered (HttpTokens=optional). */
  allowsVersion1: boolean;
  /** All tokens that were given are worth nothing from now on. */
  expireTokens(): void;
}

export async function startImds(): Promise<Imds> {
  const tokens = new Set<string>();
  const imds = {
    action: undefined as string | undefined,
    rebalance: undefined as string | undefined,
    tokens: 'given' as Imds['tokens'],
    allowsVersion1: false,
    expireTokens: () => tokens.clear(),
  };
  return Object.assign(
    imds,
    await serve((request, response) => {
      const { url, method, headers } = request;
      if (url === '/latest/api/token') {
        const ttl = Number(headers['x-aws-ec2-metadata-token-ttl-seconds']);
        if (method !== 'PUT' || !(ttl >= 1 && ttl <= 21_600)) reply(response, 400, '');
        else if (imds.tokens === 'none') reply(response, 404, '');
        else if (imds.tokens === 'given') {
          const token = randomBytes(8).toString('hex');
          tokens.add(token);
          reply(response, 200, token);
        }
        return;
      }
      const token = headers['x-aws-ec2-metadata-token'];
      const admitted = token === undefined ? imds.allowsVersion1 : tokens.has(String(token));
      if (!admitted) reply(response, 401, '');
      else if (url === '/latest/meta-data/spot/instance-action') tell(response, imds.action);
      else if (url === '/latest/meta-data/events/recommendations/rebalance') tell(response, imds.rebalance);
      else reply(response, 404, '');
    }),
  );
}

export interface Gce extends MetadataServer {
  set(name: 'preempted' | 'maintenance-event', value: string): void;
}

export async function startGce(): Promise<Gce> {
  const values = new Map([
    ['preempted', 'FALSE'],
    ['maintenance-event', 'NONE'],
  ]);
  const waiting = new Set<() => void>();
  const server = await serve((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://x');
    const name = /^\/computeMetadata\/v1\/instance\/(preempted|maintenance-event)$/.exec(pathname)?.[1] ?? '';
    if (request.headers['metadata-flavor'] !== 'Google') reply(response, 403, '');
    else if (!values.has(name)) reply(response, 404, '');
    else {
      const answer = (): void => {
        waiting.delete(onChange);
        clearTimeout(timer);
        const value = values.get(name) ?? '';
        reply(response, 200, value, { ETag: Buffer.from(value).toString('hex'), 'Metadata-Flavor': 'Google' });
      };
      const onChange = (): void => {
        if (Buffer.from(values.get(name) ?? '').toString('hex') !== searchParams.get('last_etag')) answer();
      };
      const holds = searchParams.get('wait_for_change') === 'true';
      const timer = holds ? setTimeout(answer, Number(searchParams.get('timeout_sec')) * 1000) : undefined;
      request.socket.once('close', () => {
        clearTimeout(timer);
        waiting.delete(onChange);
      });
      if (!holds) answer();
      else {
        waiting.add(onChange);
        onChange();
      }
    }
  });
  return {
    ...server,
    set: (name, value) => {
      values.set(name, value);
      for (const one of [...waiting]) one();
    },
  };
}

export interface Azure extends MetadataServer {
  events: readonly Readonly<Record<string, unknown>>[];
  /** The machine's; undefined: 404. */
  name: string | undefined;
}

export async function startAzure(): Promise<Azure> {
  const azure: Pick<Azure, 'events' | 'name'> = { events: [], name: 'vm_1' };
  return Object.assign(
    azure,
    await serve((request, response) => {
      const { pathname, searchParams } = new URL(request.url ?? '', 'http://x');
      const isName = pathname === '/metadata/instance/compute/name' && searchParams.get('format') === 'text';
      const isKnown = isName || pathname === '/metadata/scheduledevents';
      if (!isKnown || !searchParams.has('api-version')) reply(response, 404, '');
      else if (request.headers['metadata'] !== 'true') reply(response, 400, '');
      else if (isName) tell(response, azure.name);
      else reply(response, 200, JSON.stringify({ DocumentIncarnation: 1, Events: azure.events }));
    }),
  );
}

async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<MetadataServer> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method ?? ''} ${request.url ?? ''}`);
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    close: () => closeAll(server),
  };
}

async function closeAll(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

function tell(response: ServerResponse, body: string | undefined): void {
  reply(response, body === undefined ? 404 : 200, body ?? '');
}

function reply(response: ServerResponse, status: number, body: string, headers: Record<string, string> = {}): void {
  response.writeHead(status, headers).end(body);
}
