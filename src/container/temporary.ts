// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  utimesSync,
} from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../base/errors.js';
import { bindMount, detachBelow } from '../linux/mount.js';

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
  prepareMountPoint();
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

/**
 * What stands at `APP_TMP`'s place must belong to root or to us: its owner could remove it under a job that runs, and put a
 * directory of his own there. Looked at from outside of the container, where ids are what they are.
 */
function prepareMountPoint(): void {
  try {
    mkdirSync(MOUNT_POINT, { mode: 0o755 });
  } catch (error) {
    if (!hasErrno(error, 'EEXIST')) throw asFastFreezeError(error, 'make the directory', MOUNT_POINT);
  }
  const stat = lstatSync(MOUNT_POINT);
  const isOurs = stat.isDirectory() && [0, process.getuid?.()].includes(stat.uid);
  if (!isOurs) {
    throw new FastFreezeError({
      code: 'host',
      op: 'use the directory',
      subject: MOUNT_POINT,
      reason: 'it belongs to another user, who could exchange it',
      hint: `let root remove it and make it anew: rmdir ${MOUNT_POINT}; install -d -m 755 ${MOUNT_POINT}`,
    });
  }
  // Programs that clear /var/tmp go by age.
  try {
    const now = new Date();
    utimesSync(MOUNT_POINT, now, now);
  } catch {
    return; // It is root's, and root's jobs renew it.
  }
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

/** Never throws: what cannot be removed stays, and the job has ended as it has. Returns why it stays. */
export function removeTemporaryDirectory(path: string): FastFreezeError | undefined {
  try {
    // What is mounted there is not ours to empty.
    detachBelow(path);
  } catch (error) {
    return asFastFreezeError(error, 'remove temporary files, since this is mounted below them:', path);
  }
  try {
    rmSync(path, { recursive: true, force: true });
    return undefined;
  } catch {
    // Only root empties a directory that its owner may not write.
    return removeProtected(path);
  }
}

function removeProtected(path: string): FastFreezeError | undefined {
  try {
    makeWritable(path);
    rmSync(path, { recursive: true, force: true });
    return undefined;
  } catch (error) {
    return asFastFreezeError(error, 'remove temporary files', path);
  }
}

function makeWritable(directory: string): void {
  chmodSync(directory, 0o700);
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (entry.isDirectory()) makeWritable(join(directory, entry.name));
  }
}

/** Show it at its place, to this mount namespace only. Throws `host` where that cannot be. */
export function mountTemporaryDirectory(path: string): void {
  try {
    // A link would lead our mount elsewhere.
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
