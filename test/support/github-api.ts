// SPDX-License-Identifier: Apache-2.0
// The one request that is made of GitHub's API, answered as strictly as GitHub documents it.
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Dispatched {
  readonly runId: string;
  readonly ref: string;
  readonly inputs: Readonly<Record<string, string>>;
}

export interface GitHubApi {
  readonly url: string;
  readonly dispatched: readonly Dispatched[];
  /** What the workflow declares under `workflow_dispatch`. */
  declared: readonly string[];
  /** Tokens, and whether they have `actions: write`. */
  readonly tokens: Map<string, 'read' | 'write'>;
  /** Statuses to answer with before anything is looked at. */
  readonly failures: number[];
  close(): Promise<void>;
}

const PATH = '/repos/ann/research/actions/workflows/train.yml/dispatches';

export async function startGitHubApi(): Promise<GitHubApi> {
  const dispatched: Dispatched[] = [];
  const api = {
    declared: ['fastfreeze'] as readonly string[],
    tokens: new Map<string, 'read' | 'write'>(),
    failures: [] as number[],
    dispatched,
  };
  const answer = (request: IncomingMessage, text: string): [number, object] => {
    const failure = api.failures.shift();
    if (failure !== undefined) return [failure, { message: 'Service unavailable' }];
    const { method, url, headers } = request;
    if (headers['user-agent'] === undefined) return [403, { message: 'Request forbidden by administrative rules.' }];
    const token = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1] ?? '';
    const rights = api.tokens.get(token);
    if (rights === undefined) return [401, { message: 'Bad credentials' }];
    if (method !== 'POST' || url !== PATH) return [404, { message: 'Not Found' }];
    if (rights !== 'write') return [403, { message: 'Resource not accessible by integration' }];
    if (headers.accept !== 'application/vnd.github+json') return [415, { message: 'Unsupported media type' }];
    const body = JSON.parse(text) as { ref?: unknown; inputs?: Record<string, unknown>; return_run_details?: unknown };
    const strange = Object.keys(body).filter((key) => !['ref', 'inputs', 'return_run_details'].includes(key));
    if (strange.length > 0) return [422, { message: `Invalid request. ${strange.join()} is not a permitted key.` }];
    if (body.ref !== 'main') return [422, { message: `No ref found for: ${String(body.ref)}` }];
    const inputs = body.inputs ?? {};
    const unexpected = Object.keys(inputs).filter((key) => !api.declared.includes(key));
    if (unexpected.length > 0) return [422, { message: `Unexpected inputs provided: ${JSON.stringify(unexpected)}` }];
    if (Object.values(inputs).some((value) => typeof value !== 'string')) return [422, { message: 'Invalid input' }];
    const runId = String(8_000_000_001 + dispatched.length);
    dispatched.push({ runId, ref: body.ref, inputs: inputs as Record<string, string> });
    if (body.return_run_details !== true) return [204, {}];
    return [
      200,
      {
        workflow_run_id: Number(runId),
        run_url: `https://api.github.com/repos/ann/research/actions/runs/${runId}`,
        html_url: `https://github.com/ann/research/actions/runs/${runId}`,
      },
    ];
  };
  const server = createServer((request, response) => void serve(request, response, answer));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return Object.assign(api, {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => close(server),
  });
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  answer: (request: IncomingMessage, text: string) => [number, object],
): Promise<void> {
  let text = '';
  for await (const piece of request.setEncoding('utf8')) text += String(piece);
  const [status, body] = answer(request, text);
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' });
  response.end(status === 204 ? undefined : JSON.stringify(body));
}

async function close(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise<void>((resolve) => server.close(() => resolve()));
}
