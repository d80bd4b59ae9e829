// SPDX-License-Identifier: Apache-2.0
import { closeSync, constants, fstatSync, ftruncateSync, openSync, read, renameSync, rmSync } from 'node:fs';
import { promisify } from 'node:util';
import { nextData } from '../linux/file-data.js';
import { type BytePath, toBuffer } from './entry.js';
import { writeFully } from './update.js';

/**
 * Give a name a file of its own, with the same data: what is done to it then does not reach the other names of the one
 * that it had. At every moment the name leads to the one or the other. `beside` is a name of ours for the copy until it is
 * whole. The copy is the user's who restores, and nobody else's to read.
 */
export async function unshare(path: BytePath, beside: BytePath): Promise<void> {
  const [from, to] = [toBuffer(path), toBuffer(beside)];
  rmSync(to, { force: true });
  try {
    await copyData(from, to);
    renameSync(to, from);
  } catch (error) {
    rmSync(to, { force: true });
    throw error;
  }
}

const BUFFER_BYTES = 1 << 20;
const readAt = promisify(read);

/** Holes stay holes. */
async function copyData(from: Buffer, to: Buffer): Promise<void> {
  const source = openSync(from, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const target = openSync(to, 'wx', 0o600);
    try {
      const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
      const { size } = fstatSync(source);
      for (let next = nextData(source, 0); next !== undefined; next = nextData(source, next.to)) {
        for (let at = next.from; at < next.to;) {
          const { bytesRead } = await readAt(source, buffer, 0, Math.min(BUFFER_BYTES, next.to - at), at);
          if (bytesRead === 0) break;
          await writeFully(target, buffer.subarray(0, bytesRead), at);
          at += bytesRead;
        }
      }
      ftruncateSync(target, size);
    } finally {
      closeSync(target);
    }
  } finally {
    closeSync(source);
  }
}
