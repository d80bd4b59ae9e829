// SPDX-License-Identifier: Apache-2.0
import { chmodSync, lstatSync, readdirSync, rmSync } from 'node:fs';
import { hasErrno } from '../base/errors.js';
import { type BytePath, toBuffer } from './entry.js';

/** Remove whatever is there of ours, also directories that a mode of the application's forbids to change. */
export function remove(path: BytePath): void {
  const raw = toBuffer(path);
  try {
    rmSync(raw, { recursive: true, force: true });
  } catch (error) {
    if (!hasErrno(error, 'EACCES', 'EPERM')) throw error;
    openUp(raw);
    rmSync(raw, { recursive: true, force: true });
  }
}

/** Let their owner into a directory and all below it. Links are not followed. */
function openUp(path: Buffer): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory() !== true) return;
  if ((stat.mode & 0o700) !== 0o700) chmodSync(path, (stat.mode & 0o7777) | 0o700);
  for (const name of readdirSync(path, { encoding: 'buffer' })) openUp(Buffer.concat([path, Buffer.from('/'), name]));
}
