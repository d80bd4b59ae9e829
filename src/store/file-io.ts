// SPDX-License-Identifier: Apache-2.0
import * as fs from 'node:fs';
import { open } from 'node:fs/promises';

/** Write all of `bytes` at `position`. Any number may run at once on one descriptor: none moves a file offset. */
export function writeAll(fd: number, bytes: Uint8Array, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const from = (done: number): void => {
      fs.write(fd, bytes, done, bytes.length - done, position + done, (error, written) => {
        if (error !== null) reject(error);
        else if (done + written === bytes.length) resolve();
        else from(done + written);
      });
    };
    from(0);
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
