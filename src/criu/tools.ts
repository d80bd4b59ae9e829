// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { basename } from 'node:path';
import { FastFreezeError } from '../base/errors.js';

/**
 * Try what a restore starts: it sees the files of the image (`replaced`, their paths) as the application does, and programs of
 * this machine need not run with libraries of another. Throws `conflict` where one does not.
 */
export function refuseBrokenTools(
  criu: readonly string[],
  replaced: readonly string[],
  timeoutMs = START_TIMEOUT_MS,
): void {
  const tools = [
    ['/bin/sh', '-c', ':'],
    [...criu, '--version'],
  ];
  for (const [file = '', ...args] of tools) {
    const { status, signal, error, stderr } = spawnSync(file, args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      encoding: 'utf8',
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
    });
    if (status === 0) continue;
    const how = error?.message ?? `${file} ended with ${signal ?? `exit code ${status ?? 1}`}`;
    // Of what could not be started, Node has no stderr either.
    const said = error === undefined ? (stderr.trim().split('\n').at(-1) ?? '') : '';
    throw new FastFreezeError({
      code: 'conflict',
      op: 'restore the application with the files in its image, among them',
      subject: replaced.find(isOfCLibrary) ?? replaced[0] ?? '',
      reason: `programs of this machine do not start with them: ${how}${said === '' ? '' : ` (${said})`}`,
      hint: 'continue it on the release of the system that it was frozen on (the same container image); --allow-inexact does not help here',
    });
  }
}

/** On a slow machine whose disk is busy, too. */
const START_TIMEOUT_MS = 30_000;

/** The C library or its loader, which every program has. */
function isOfCLibrary(path: string): boolean {
  return /^(?:libc|ld-linux)[-.]/.test(basename(path));
}
