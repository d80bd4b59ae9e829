// SPDX-License-Identifier: Apache-2.0
import { Agent, request } from 'node:http';
import { hasErrno } from '../base/errors.js';

export interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

export interface Question {
  readonly url: string;
  readonly method?: 'GET' | 'PUT';
  readonly headers?: Readonly<Record<string, string>>;
  /** For the whole of it, from the connection to the last byte. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Metadata is short; more than this is something else. */
const MAX_BODY_BYTES = 1 << 20;

/** A connection a request, every second for days, would cost more than all the rest. Idle ones keep no process alive. */
const agent = new Agent({ keepAlive: true, maxFreeSockets: 4 });

/** One request of a metadata service. Rejects with a system error (`ETIMEDOUT` when it takes too long). */
export async function ask(question: Question): Promise<Answer> {
  try {
    return await askOnce(question, agent);
  } catch (error) {
    // A connection that was kept may have been closed at the other end, just when it was used.
    if (!hasErrno(error, 'ECONNRESET', 'EPIPE')) throw error;
    return await askOnce(question, false);
  }
}

async function askOnce(question: Question, agent: Agent | false): Promise<Answer> {
  const { url, method = 'GET', headers = {}, timeoutMs, signal } = question;
  return await new Promise<Answer>((resolve, reject) => {
    const asked = request(
      url,
      { method, agent, headers: { ...headers, 'Content-Length': '0' }, signal },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (piece: string) => {
          body += piece;
          if (body.length > MAX_BODY_BYTES) asked.destroy(failure('EMSGSIZE', 'the answer is too long'));
        });
        response.once('error', reject);
        response.once('end', () => resolve({ status: response.statusCode ?? 0, body, headers: response.headers }));
      },
    );
    const timer = setTimeout(
      () => asked.destroy(failure('ETIMEDOUT', `no answer within ${timeoutMs / 1000} s`)),
      timeoutMs,
    );
    asked.once('close', () => clearTimeout(timer));
    asked.once('error', reject);
    asked.end();
  });
}

/** The base of a service out of a variable that may have a scheme or not, and a slash at its end or not. */
export function baseUrl(text: string): string {
  const withScheme = /^https?:\/\//u.test(text) ? text : `http://${text}`;
  return withScheme.replace(/\/+$/u, '');
}

function failure(code: string, message: string): NodeJS.ErrnoException {
  return Object.assign(new Error(message), { code });
}
