// SPDX-License-Identifier: Apache-2.0
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { freePort } from './ports.js';
import { messageOf, until } from './until.js';

/** An S3 server on loopback, for one test file. */
export interface S3Server {
  readonly url: string;
  /** What a program needs to speak to it. */
  readonly env: Readonly<Record<string, string>>;
  makeBucket(name: string): Promise<void>;
  stop(): Promise<void>;
}

const CREDENTIALS = {
  AWS_ACCESS_KEY_ID: 'test',
  AWS_SECRET_ACCESS_KEY: 'test-secret',
  AWS_REGION: 'us-east-1',
  AWS_EC2_METADATA_DISABLED: 'true',
};

/** Whether this machine has moto. Debian 12 has no package of it; test/skips.json names what then is not tested. */
export const hasMoto = spawnSync('moto_server', ['--help'], { stdio: 'ignore', timeout: 60_000 }).status === 0;

/** moto: the one server to be had that keeps conditional writes and multipart uploads as S3 does. */
export async function startMoto(): Promise<S3Server> {
  const port = await freePort();
  // Told by the kernel when we are gone, even if we were killed: nobody else would end it.
  const words = ['--pdeathsig', 'KILL', 'moto_server', '-H', '127.0.0.1', '-p', String(port)];
  const server = spawn('setpriv', words, { stdio: 'ignore', detached: true });
  let failed: unknown;
  server.once('error', (error) => (failed = error));
  const url = `http://127.0.0.1:${port}`;
  await until('moto to answer', () => {
    if (failed !== undefined) throw new Error(`moto_server cannot be started: ${messageOf(failed)}`);
    if (server.exitCode !== null) throw new Error(`moto_server ended with ${server.exitCode}`);
    return fetch(url).then(
      () => true,
      () => false,
    );
  });
  return {
    url,
    env: { ...CREDENTIALS, AWS_ENDPOINT_URL_S3: url },
    async makeBucket(name) {
      const answer = await fetch(`${url}/${name}`, { method: 'PUT' });
      if (!answer.ok) throw new Error(`making the bucket ${name}: ${answer.status} ${await answer.text()}`);
    },
    stop: () => stop(server),
  };
}

/** pyenv's shim is a shell that execs; the group has whatever it became. */
async function stop(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const ended = once(server, 'exit');
  if (server.pid !== undefined) process.kill(-server.pid, 'SIGKILL');
  await ended;
}
