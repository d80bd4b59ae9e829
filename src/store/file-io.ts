// SPDX-License-Identifier: Apache-2.0
import * as fs from 'node:fs';
import { open } from 'node:fs/promises';
import { type Pieces, after, sizeOf } from './pieces.js';

/**
 * Write `parts` one behind the other from `position`, in one call: a thread each would wait for the same lock of the
 * file. Any number may run at once.
 */
export async function writeAll(fd: number, parts: Pieces, position: number): Promise<void> {
  let rest = parts;
  for (let at = position; sizeOf(rest) > 0;) {
    const written = await writeSome(fd, rest.slice(0, MAX_PARTS), at);
    at += written;
    rest = after(rest, written);
  }
}

/** The kernel's IOV_MAX. */
const MAX_PARTS = 1024;

function writeSome(fd: number, parts: Uint8Array[], position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.writev(fd, parts, position, (error, written) => {
      if (error === null) resolve(written);
      else reject(error);
    });
  });
}

/** Fill `into` from `position`; resolves to the bytes there were, fewer only at the end of the file. */
export function readAll(fd: number, into: Uint8Array, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const from = (done: number): void => {
      fs.read(fd, into, done, into.length - done, position + done, (error, got) => {
        if (error !== null) reject(error);
        else if (got === 0 || done + got === into.length) resolve(done + got);
        else from(done + got);
      });
    };
    from(0);
  });
}

/** A name is durable only when its directory is: rename and link change the directory, not the file. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
