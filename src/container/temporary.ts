// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { chmodSync, closeSync, constants, lstatSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../base/errors.js';
import { bindMount } from '../linux/mount.js';

/** TMPDIR of every application in a container of ours: the same path on every machine, and its files in every image. */
export const APP_TMP = '/var/tmp/fastfreeze/tmp';
const MOUNT_POINT = '/var/tmp/fastfreeze';

/**
 * Make what will be `APP_TMP` of a job, empty, where its caller wants temporary files: `$TMPDIR`, or else where there is
 * room for them. What a run that was killed left is removed; the caller holds the job's lock. Throws when no place will do.
 */
export function makeTemporaryDirectory(jobDirectory: string, env: NodeJS.ProcessEnv): string {
  const mark = createHash('sha256').update(jobDirectory).digest('hex').slice(0, 16);
  const name = `fastfreeze-${process.getuid?.() ?? 0}-${mark}`;
  let refusal: unknown;
  for (const base of [env['TMPDIR'] ?? '', '/var/tmp', '/tmp']) {
    try {
      if (isAbsolute(base)) return make(join(base, name));
    } catch (error) {
      refusal ??= error;
    }
  }
  throw asFastFreezeError(refusal, 'make a directory for temporary files named', name);
}

function make(path: string): string {
  if (lstatSync(path, { throwIfNoEntry: false })?.uid === process.getuid?.()) removeTemporaryDirectory(path);
  // Only its owner gets through this one; below it, users that the application turns into do as well.
  mkdirSync(path, { mode: 0o700 });
  for (const below of [inner(path), join(inner(path), 'tmp')]) mkdirSync(below);
  // Whatever our umask is.
  chmodSync(inner(path), 0o755);
  chmodSync(join(inner(path), 'tmp'), 0o1777);
  return path;
}

export function removeTemporaryDirectory(path: string): void {
  rmSync(path, { recursive: true, force: true });
}

/** Show it at its place, to this mount namespace only. Throws `host` where there is no such place, and none can be made. */
export function mountTemporaryDirectory(path: string): void {
  try {
    try {
      mkdirSync(MOUNT_POINT, { mode: 0o755 });
    } catch (error) {
      if (!hasErrno(error, 'EEXIST')) throw error;
    }
    // Anybody may have made it: a link would lead our mount elsewhere.
    const fd = openSync(MOUNT_POINT, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    try {
      bindMount(inner(path), `/proc/self/fd/${fd}`);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new FastFreezeError({
      code: 'host',
      op: "mount the application's temporary files on",
      subject: MOUNT_POINT,
      reason: asFastFreezeError(error, 'mount').reason,
      hint: 'make it, as an empty directory',
      cause: error,
    });
  }
}

const O_PATH = 0o10000000;

function inner(path: string): string {
  return join(path, 'in');
}
