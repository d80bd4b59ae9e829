// SPDX-License-Identifier: Apache-2.0
import { type Stats, statSync } from 'node:fs';
import { FastFreezeError } from '../base/errors.js';

/** A regular file that the application appends to, and its length at the freeze. */
export interface AppendingFile {
  readonly path: string;
  readonly lengthBytes: number;
}

/**
 * Refuse to continue an application that would append to a file which is not as it left it: what it wrote after the
 * freeze would stand there twice, or be missing. Throws `conflict`. A file that does not exist is left to CRIU, which
 * says so.
 */
export function refuseChangedAppending(files: readonly AppendingFile[]): void {
  for (const { path, lengthBytes } of files) {
    const nowBytes = statIfThere(path)?.size;
    if (nowBytes === undefined || nowBytes === lengthBytes) continue;
    const grown = nowBytes > lengthBytes;
    throw new FastFreezeError({
      code: 'conflict',
      op: 'continue the application, which appends to',
      subject: path,
      reason: `the file had ${lengthBytes} bytes at the checkpoint and has ${nowBytes} now: ${
        grown ? 'what was added since would appear in it twice' : 'a part of it is missing'
      }`,
      hint: grown
        ? `if only this application writes to it, cut it back: truncate -s ${lengthBytes} ${quote(path)}`
        : 'bring the file back, or start over with --no-restore',
    });
  }
}

function statIfThere(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** As a shell takes it. */
function quote(path: string): string {
  return /^[\w./+-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}
