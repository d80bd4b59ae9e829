// SPDX-License-Identifier: Apache-2.0
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { canMakeRoots, debianRoot, MAKE_ROOT_MS, type RootRecipe } from './debian-root.js';
import type { S3Server } from './moto.js';
import { freePorts } from './ports.js';
import { childrenOf, signalPid } from './processes.js';
import { swiftFiles } from './swift-config.js';
import { until } from './until.js';

export const SWIFT_KEY = 'test:tester';
export const SWIFT_SECRET = 'testing';

/** Whether Swift can be had here; test/skips.json names what else is not tested. */
export const hasSwift = canMakeRoots;

/** Also the newer Debian of other tests: it is made once. */
export const SWIFT_ROOT: RootRecipe = {
  suite: 'trixie',
  packages: ['swift-proxy', 'swift-account', 'swift-container', 'swift-object', 'memcached'],
};

const START_MS = 120_000;
/** The first time, with the making of the root. */
export const SWIFT_START_MS = MAKE_ROOT_MS + START_MS;

/**
 * OpenStack Swift with its S3 interface, as Debian packages it: a server that people run, and one that verifies signatures
 * and checksums. It has no conditional writes.
 */
export async function startSwift(): Promise<S3Server> {
  const root = await debianRoot(SWIFT_ROOT);
  const [proxy = 0, account = 0, container = 0, object = 0, memcached = 0] = await freePorts(5);
  const dir = mkdtempSync(join(tmpdir(), 'ff-swift-'));
  for (const name of ['etc', 'srv/node/disk', 'srv/log', 'cache']) mkdirSync(join(dir, name), { recursive: true });
  const files = swiftFiles({ proxy, account, container, object, memcached });
  for (const [name, content] of Object.entries(files)) writeFileSync(join(dir, 'etc', name), content);

  const server = spawn('sh', ['-c', KEEP, 'sh', root, dir, ENTER], {
    stdio: ['pipe', 'ignore', 'pipe'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8' },
  });
  let said = '';
  server.stderr.on('data', (data: Buffer) => (said = (said + data.toString()).slice(-4000)));
  const url = `http://127.0.0.1:${proxy}`;
  try {
    await until(
      'Swift to store an object',
      () => isReady(url, server),
      START_MS,
      () => said + logs(join(dir, 'srv/log')),
    );
  } catch (error) {
    await stop(server);
    throw error;
  }
  return {
    url,
    env: {
      AWS_ACCESS_KEY_ID: SWIFT_KEY,
      AWS_SECRET_ACCESS_KEY: SWIFT_SECRET,
      AWS_REGION: 'us-east-1',
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_ENDPOINT_URL_S3: url,
    },
    async makeBucket(name) {
      const status = await ask(url, 'PUT', name);
      if (status !== 201) throw new Error(`making the bucket ${name}: ${String(status)}`);
    },
    stop: () => stop(server),
  };
}

/** Everything that is left on the disk goes at the end, even when the end is that of a test run which was killed. */
const KEEP = `
trap : HUP INT TERM
unshare --mount --pid --ipc --fork --kill-child sh -c "$3" sh "$1" "$2"
rm -rf --one-file-system "$2"
`;

/** The root stays as it is for others: what is written lies in our directory. Mounts go with the namespace. */
const ENTER = `
set -eu
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount --bind "$2/etc" "$1/etc/swift"
mount --bind "$2/srv" "$1/srv"
mount --bind "$2/cache" "$1/var/cache"
mount -t tmpfs tmpfs "$1/tmp"
mount -t tmpfs tmpfs "$1/run"
mount -t tmpfs tmpfs "$1/dev/shm"
mount -t proc proc "$1/proc"
exec chroot "$1" sh /etc/swift/start.sh
`;

/** All four servers have a part in this. */
async function isReady(url: string, server: ChildProcess): Promise<boolean> {
  if (server.exitCode !== null || server.signalCode !== null) throw new Error('Swift ended while it started');
  const statuses = [];
  for (const [method, path] of [
    ['PUT', 'ready'],
    ['PUT', 'ready/object'],
    ['DELETE', 'ready/object'],
    ['DELETE', 'ready'],
  ] as const) {
    statuses.push(await ask(url, method, path).catch(() => undefined));
    if (statuses.at(-1) === undefined) return false;
  }
  return statuses.join() === '201,201,204,204';
}

/** By Swift's own interface: no signature is needed, so no S3 client of ours has to be right for the start. */
async function ask(url: string, method: string, path: string): Promise<number | undefined> {
  const signal = AbortSignal.timeout(10_000);
  const user = { 'x-auth-user': SWIFT_KEY, 'x-auth-key': SWIFT_SECRET };
  const { headers } = await fetch(`${url}/auth/v1.0`, { headers: user, signal });
  const token = headers.get('x-auth-token');
  if (token === null) return undefined;
  const answer = await fetch(`${headers.get('x-storage-url') ?? ''}/${path}`, {
    method,
    headers: { 'x-auth-token': token },
    signal,
  });
  await answer.arrayBuffer();
  return answer.status;
}

function logs(dir: string): string {
  return readdirSync(dir)
    .map((name) => `--- ${name}:\n${readFileSync(join(dir, name), 'utf8').slice(-1500)}`)
    .join('\n');
}

/** Its PID 1 reads our pipe to the end; with it end the namespaces and all that runs in them. */
async function stop(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const ended = once(server, 'exit');
  server.stdin?.end();
  const timer = setTimeout(() => {
    for (const pid of childrenOf(server.pid ?? -1)) signalPid(pid, 'SIGKILL');
  }, STOP_MS);
  await ended;
  clearTimeout(timer);
}

const STOP_MS = 10_000;
