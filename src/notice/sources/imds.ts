// SPDX-License-Identifier: Apache-2.0
import { hasErrno } from '../../base/errors.js';
import { type Answer, ask, baseUrl } from '../http.js';
import { type Clock, type Notice, type NoticeSource, type SourceTools, poll, reasonOf } from '../notice.js';

export interface ImdsOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly now?: Clock;
  readonly pollMs?: number;
  /** For one request; an instance answers in milliseconds. */
  readonly timeoutMs?: number;
}

const POLL_MS = 2_000;
const TIMEOUT_MS = 1_000;
/** The longest that the service grants. */
const TOKEN_TTL_S = 21_600;
/** Renewed well before it ends. */
const TOKEN_AGE_MS = (TOKEN_TTL_S * 1000) / 2;
const WINDOW_MS = 120_000;

const ACTION = '/latest/meta-data/spot/instance-action';
const REBALANCE = '/latest/meta-data/events/recommendations/rebalance';

/**
 * Interruptions of EC2 Spot instances, and the recommendation to rebalance that may come before: by the instance
 * metadata service, version 2, every two seconds. Where it gives no tokens but answers without, by version 1.
 */
export function imdsSource(options: ImdsOptions): NoticeSource {
  const { pollMs = POLL_MS } = options;
  return {
    name: 'EC2 Spot interruption (IMDS)',
    windowMs: WINDOW_MS - pollMs,
    watch: async (tools) => {
      const client = createClient(options, tools.signal);
      let hinted = false;
      await poll(tools, {
        everyMs: pollMs,
        look: async () => {
          hinted = await look(client, tools, hinted, options.now ?? Date.now);
          return 'more';
        },
        explain: (error) => explain(error, client.url),
      });
    },
  };
}

async function look(client: Client, tools: SourceTools, hinted: boolean, now: Clock): Promise<boolean> {
  const action = await client.get(ACTION);
  if (action.status === 200) {
    tools.report(interruption(action.body, now));
    return hinted;
  }
  if (action.status !== 404) throw new Error(`it answered with status ${action.status}`);
  if (hinted) return true;
  tools.report(undefined);
  const rebalance = await client.get(REBALANCE);
  if (rebalance.status !== 200) return false;
  tools.report({ what: 'hint', detail: 'EC2 recommends to leave this Spot instance (rebalance)' });
  return true;
}

/** `{"action":"terminate","time":"2017-09-18T08:22:00Z"}`. A time that cannot be read is now. */
function interruption(body: string, now: Clock): Notice {
  const text = (name: string): string => new RegExp(`"${name}"\\s*:\\s*"([^"]*)"`, 'u').exec(body)?.[1] ?? '';
  const atMs = Date.parse(text('time'));
  const action = text('action') === '' ? 'interrupt' : text('action');
  return {
    what: 'stop',
    deadline: { atMs: Number.isNaN(atMs) ? now() : atMs, kind: 'taken-away' },
    detail: `EC2 will ${action} this Spot instance at ${Number.isNaN(atMs) ? 'any moment' : new Date(atMs).toISOString()}`,
  };
}

interface Client {
  readonly url: string;
  get(path: string): Promise<Answer>;
}

function createClient(options: ImdsOptions, signal: AbortSignal): Client {
  const { env, now = Date.now, timeoutMs = TIMEOUT_MS } = options;
  const url = baseUrl(env['AWS_EC2_METADATA_SERVICE_ENDPOINT'] ?? defaultEndpoint(env));
  let token: { readonly text: string; readonly atMs: number } | undefined;
  const question = (path: string, headers: Record<string, string> = {}): Parameters<typeof ask>[0] => ({
    url: `${url}${path}`,
    headers,
    timeoutMs,
    signal,
  });
  const freshToken = async (): Promise<string | undefined> => {
    if (token !== undefined && now() - token.atMs < TOKEN_AGE_MS) return token.text;
    const headers = { 'X-aws-ec2-metadata-token-ttl-seconds': String(TOKEN_TTL_S) };
    const reply = await ask({ ...question('/latest/api/token', headers), method: 'PUT' });
    token = reply.status === 200 ? { text: reply.body, atMs: now() } : undefined;
    return token?.text;
  };
  const getOnce = async (path: string): Promise<Answer> => {
    let text: string | undefined;
    try {
      text = await freshToken();
    } catch (error) {
      // Behind one hop too many the answer with the token never arrives; version 1 may still be allowed.
      if (!hasErrno(error, 'ETIMEDOUT')) throw error;
      const reply = await ask(question(path)).catch(() => undefined);
      if (reply !== undefined && (reply.status === 200 || reply.status === 404)) return reply;
      throw error;
    }
    return await ask(question(path, text === undefined ? {} : { 'X-aws-ec2-metadata-token': text }));
  };
  return {
    url,
    get: async (path) => {
      let reply = await getOnce(path);
      if (reply.status === 401 && token !== undefined) {
        // It has ended sooner than it said: the instance was stopped and started.
        token = undefined;
        reply = await getOnce(path);
      }
      return reply;
    },
  };
}

function defaultEndpoint(env: NodeJS.ProcessEnv): string {
  const mode = env['AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE'] ?? 'IPv4';
  return mode.toLowerCase() === 'ipv6' ? 'http://[fd00:ec2::254]' : 'http://169.254.169.254';
}

function explain(error: unknown, url: string): string {
  const head = `EC2's metadata service at ${url} is no source of notices`;
  if (hasErrno(error, 'ETIMEDOUT')) {
    return (
      `${head}: it gives no token in time. In a container with a network of its own this is the hop limit: set the ` +
      `instance's HttpPutResponseHopLimit to 2 (launch template, MetadataOptions), or use the host's network`
    );
  }
  return `${head}: ${reasonOf(error)}. Spot interruptions will not be noticed; checkpoints must come by timer`;
}
