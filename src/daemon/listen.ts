// SPDX-License-Identifier: Apache-2.0
import { lstatSync, renameSync, rmSync } from 'node:fs';
import { type AddressInfo, type Server, connect } from 'node:net';
import { dirname } from 'node:path';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../base/errors.js';
import { closeFd } from '../linux/fds.js';
import { tryLockDirectory } from '../linux/flock.js';
import { withSocketPath } from '../linux/unix-socket.js';

export type Address =
  | { readonly kind: 'socket'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

export interface Listening {
  /** For people: a path, or `http://HOST:PORT`. */
  readonly where: string;
  /** Takes the socket's file away. The server is closed by its owner. */
  remove(): void;
}

/** Throws `conflict` when another daemon listens there, `host` when it cannot be done. */
export async function listen(server: Server, address: Address): Promise<Listening> {
  return address.kind === 'socket' ? await listenOnSocket(server, address.path) : await listenOnPort(server, address);
}

async function listenOnPort(
  server: Server,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<Listening> {
  try {
    await started(server, () => server.listen(port, host));
  } catch (error) {
    if (hasErrno(error, 'EADDRINUSE')) throw inUse(`${host}:${port}`, 'somebody else listens there');
    throw cannotListen(`${host}:${port}`, error);
  }
  const { address, family, port: actual } = server.address() as AddressInfo;
  return { where: `http://${family === 'IPv6' ? `[${address}]` : address}:${actual}`, remove: () => undefined };
}

/** The file that a dead daemon left is replaced, at one moment: whoever finds the socket can connect. */
async function listenOnSocket(server: Server, path: string): Promise<Listening> {
  const lockFd = await lockFolder(path);
  try {
    await refuseIfTaken(path);
    const temporary = `${path}.new`;
    rmSync(temporary, { force: true });
    await started(server, () => {
      // It is nobody else's at any moment, which a chmod would come too late for.
      const mask = process.umask(0o177);
      try {
        withSocketPath(temporary, (short) => server.listen(short));
      } finally {
        process.umask(mask);
      }
    });
    renameSync(temporary, path);
  } catch (error) {
    throw error instanceof FastFreezeError ? error : cannotListen(path, error);
  } finally {
    closeFd(lockFd);
  }
  const inode = lstatSync(path).ino;
  return {
    where: path,
    remove: () => {
      // Somebody may have taken our file away and put another in its place.
      if (lstatSync(path, { throwIfNoEntry: false })?.ino === inode) rmSync(path, { force: true });
    },
  };
}

/** Two daemons that start together must not both take the same dead one's place. */
async function lockFolder(path: string): Promise<number> {
  const deadlineMs = Date.now() + LOCK_TIMEOUT_MS;
  for (;;) {
    let fd: number | undefined;
    try {
      fd = tryLockDirectory(dirname(path));
    } catch (error) {
      throw cannotListen(path, error);
    }
    if (fd !== undefined) return fd;
    if (Date.now() > deadlineMs) throw inUse(path, 'its folder stays locked by somebody else');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const LOCK_TIMEOUT_MS = 3_000;

async function refuseIfTaken(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw inUse(path, 'a file that is no socket lies there');
  if (!(await isDead(path))) throw inUse(path, 'another daemon listens there');
}

async function isDead(path: string): Promise<boolean> {
  return await new Promise<boolean>((resolve) => {
    const socket = withSocketPath(path, (short) => connect(short));
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    // Anything else (one of another user's, one that is too busy) may be alive.
    socket.once('error', (error) => resolve(hasErrno(error, 'ECONNREFUSED', 'ENOENT')));
  });
}

async function started(server: Server, begin: () => void): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
    begin();
  });
}

function inUse(where: string, reason: string): FastFreezeError {
  return new FastFreezeError({
    code: 'conflict',
    op: 'listen on',
    subject: where,
    reason,
    hint: 'end it, or give this daemon another --socket or --port',
  });
}

function cannotListen(where: string, error: unknown): FastFreezeError {
  const { reason } = asFastFreezeError(error, 'listen on');
  return new FastFreezeError({ code: 'host', op: 'listen on', subject: where, reason, cause: error });
}
