// SPDX-License-Identifier: Apache-2.0
// An S3 server behind a link: where the benchmark uploads to.
import { execFileSync } from 'node:child_process';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { type Child, start } from './jobs.js';
import { type Link, createLink, noLink } from './link.js';
import { sleep } from './machine.js';
import { cpuSeconds, treeOf } from './processes.js';

export interface S3Server {
  readonly link: Link;
  /** What a client needs to speak to it. */
  readonly env: Readonly<Record<string, string>>;
  /** `s3://bucket`, which exists. */
  readonly url: string;
  /** Forget all objects. */
  reset(): Promise<void>;
  storedBytes(): Promise<number>;
  /** CPU seconds that it has used. */
  cpuSeconds(): number;
  /** Bytes per second that it takes and gives, over the link as it is now. */
  rate(bytes: number): Promise<{ readonly up: number; readonly down: number }>;
  stop(): Promise<void>;
}

const BUCKET = 'bench';
const PORT = 5000;
const PART_BYTES = 8 << 20;
const OBJECT_BYTES = 32 << 20;
const SIDE_BY_SIDE = 4;
const START_TIMEOUT_MS = 60_000;
const REQUEST_TIMEOUT_MS = 120_000;

/** Why no server can be had here; undefined when one can. */
export function noServer(): string | undefined {
  try {
    execFileSync('moto_server', ['--help'], { stdio: 'ignore', timeout: 60_000 });
  } catch {
    return 'there is no moto_server';
  }
  return noLink();
}

/** @param directory on tmpfs, for the objects */
export async function startServer(directory: string): Promise<S3Server> {
  const child = start(
    ['unshare', '--net', '--fork', '--kill-child', '--', 'moto_server', '-H', '0.0.0.0', '-p', String(PORT)],
    { env: { TMPDIR: directory }, logPath: join(directory, 'server.log'), timeoutMs: 3_600_000 },
  );
  const link = await createLink(child.pid);
  const base = `http://${link.theirAddress}:${PORT}`;
  await answering(base, child);
  const agent = new Agent({ keepAlive: true, maxSockets: SIDE_BY_SIDE });
  const call: Call = (method, path, body) => ask(agent, method, `${base}/${path}`, body);
  await call('PUT', BUCKET);
  return {
    link,
    env: {
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test-secret',
      AWS_REGION: 'us-east-1',
      AWS_DEFAULT_REGION: 'us-east-1',
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_ENDPOINT_URL: base,
      AWS_ENDPOINT_URL_S3: base,
    },
    url: `s3://${BUCKET}`,
    async reset() {
      await call('POST', 'moto-api/reset');
      await call('PUT', BUCKET);
    },
    async storedBytes() {
      const listing = (await call('GET', `${BUCKET}?list-type=2`)).body.toString();
      return [...listing.matchAll(/<Size>(\d+)<\/Size>/g)].reduce((sum, [, size]) => sum + Number(size), 0);
    },
    cpuSeconds: () => treeOf(child.pid).reduce((sum, pid) => sum + cpuSeconds(pid), 0),
    rate: (bytes) => measureRate(call, bytes),
    async stop() {
      agent.destroy();
      link.remove();
      // `unshare` ignores SIGTERM while it waits for its child.
      child.kill('SIGKILL');
      await child.exited;
    },
  };
}

interface Answer {
  readonly body: Buffer;
  readonly etag: string | undefined;
}

type Call = (method: string, path: string, body?: Uint8Array) => Promise<Answer>;

/**
 * Multipart uploads side by side, then downloads of the same objects, by a client that does nothing else. The objects are of a
 * size that suits the server: it joins the parts of each in memory, the slower the more there are.
 */
async function measureRate(call: Call, bytes: number): Promise<{ up: number; down: number }> {
  const part = Buffer.alloc(PART_BYTES, 'part');
  const parts = OBJECT_BYTES / PART_BYTES;
  const count = Math.max(SIDE_BY_SIDE, Math.round(bytes / OBJECT_BYTES));
  const objects = Array.from({ length: count }, (_, i) => `${BUCKET}/rate-${i}`);
  const timed = async (work: (object: string) => Promise<void>): Promise<number> => {
    const startMs = performance.now();
    const queue = [...objects];
    const follow = async (): Promise<void> => {
      for (let object = queue.shift(); object !== undefined; object = queue.shift()) await work(object);
    };
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, follow));
    return (count * OBJECT_BYTES) / ((performance.now() - startMs) / 1000);
  };
  const up = await timed(async (object) => {
    const id = /<UploadId>([^<]+)</.exec((await call('POST', `${object}?uploads`)).body.toString())?.[1] ?? '';
    const listed: string[] = [];
    for (let number = 1; number <= parts; number++) {
      const { etag } = await call('PUT', `${object}?partNumber=${number}&uploadId=${id}`, part);
      listed.push(`<Part><PartNumber>${number}</PartNumber><ETag>${etag}</ETag></Part>`);
    }
    const body = `<CompleteMultipartUpload>${listed.join('')}</CompleteMultipartUpload>`;
    await call('POST', `${object}?uploadId=${id}`, Buffer.from(body));
  });
  const down = await timed(async (object) => {
    await call('GET', object);
  });
  for (const object of objects) await call('DELETE', object);
  return { up, down };
}

function ask(agent: Agent, method: string, url: string, body?: Uint8Array): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-length': body?.length ?? 0 };
    const sent = request(url, { method, agent, headers, timeout: REQUEST_TIMEOUT_MS }, (answer) => {
      const parts: Buffer[] = [];
      answer.on('data', (some: Buffer) => parts.push(some));
      answer.once('error', reject);
      answer.once('end', () => {
        const body = Buffer.concat(parts);
        if ((answer.statusCode ?? 500) < 300) resolve({ body, etag: answer.headers.etag });
        else reject(new Error(`${method} ${url}: ${answer.statusCode} ${body.toString().slice(0, 300)}`));
      });
    });
    sent.once('timeout', () => sent.destroy(new Error(`${method} ${url}: no answer`)));
    sent.once('error', reject);
    sent.end(body);
  });
}

async function answering(base: string, child: Child): Promise<void> {
  for (const endMs = Date.now() + START_TIMEOUT_MS; ;) {
    const signal = AbortSignal.timeout(1_000);
    const answers = await fetch(base, { signal }).then(
      () => true,
      () => false,
    );
    if (answers) return;
    if (child.hasExited()) throw new Error('the S3 server has ended');
    if (Date.now() > endMs) throw new Error('the S3 server does not answer');
    await sleep(100);
  }
}
