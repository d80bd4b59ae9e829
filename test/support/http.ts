// SPDX-License-Identifier: Apache-2.0
import { type RequestOptions, request } from 'node:http';

export interface Reply {
  readonly status: number;
  readonly text: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** Where a server is: a UNIX socket's path, or a port of this machine's. */
export type Where = { readonly socketPath: string } | { readonly port: number };

export interface AskOptions {
  readonly body?: string | Buffer | object;
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}

/** One request, answered whole. An object for a body goes as JSON. */
export async function ask(where: Where, method: string, path: string, options: AskOptions = {}): Promise<Reply> {
  const { body = '', headers = {}, timeoutMs = 60_000 } = options;
  const bytes = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  const to: RequestOptions = {
    ...where,
    method,
    path,
    agent: false,
    headers: { ...headers, 'Content-Length': Buffer.byteLength(bytes) },
  };
  return await new Promise<Reply>((resolve, reject) => {
    const asked = request(to, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
      response.once('error', reject);
      response.once('end', () => resolve({ status: response.statusCode ?? 0, text, headers: response.headers }));
    });
    asked.setTimeout(timeoutMs, () =>
      asked.destroy(new Error(`no answer to ${method} ${path} within ${timeoutMs} ms`)),
    );
    asked.once('error', reject);
    asked.end(bytes);
  });
}
