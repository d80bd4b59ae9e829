// SPDX-License-Identifier: Apache-2.0
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../base/errors.js';
import { homeDirectory } from '../base/home.js';
import { isLocked, tryLock } from '../linux/flock.js';

/** Directory of one running job: control socket, token, lock, CRIU's working directories. */
export interface JobDirectory {
  readonly name: string;
  readonly path: string;
  readonly lockFd: number;
}

/**
 * Where running jobs are found: `$FF_STATE_DIR`, `$XDG_RUNTIME_DIR/fastfreeze`, `/run/fastfreeze/UID`, and, where a
 * normal user has no such place, `/tmp/fastfreeze-UID`. Always 0700 and our own: who reaches into it controls jobs.
 */
export function stateDirectory(env: NodeJS.ProcessEnv = process.env, purpose: 'own' | 'visit' = 'own'): string {
  const uid = process.getuid?.() ?? 0;
  const runtime = env['XDG_RUNTIME_DIR'];
  const candidates = [
    env['FF_STATE_DIR'],
    runtime === undefined || runtime === '' || uid === 0 ? undefined : join(runtime, 'fastfreeze'),
    `/run/fastfreeze/${uid}`,
    `/tmp/fastfreeze-${uid}`,
  ].filter((path): path is string => path !== undefined && path !== '');
  let refusal: FastFreezeError | undefined;
  for (const path of candidates) {
    try {
      return privateDirectory(path, uid, purpose);
    } catch (error) {
      refusal = asFastFreezeError(error, 'use the state directory', path);
      // A place that somebody prepared for us to fall into is no reason to look elsewhere.
      if (refusal.code === 'conflict' || path === env['FF_STATE_DIR']) throw refusal;
    }
  }
  throw refusal ?? new FastFreezeError({ code: 'host', op: 'find a state directory', reason: 'none can be made' });
}

/** Where logs of failures are kept. */
export function logDirectory(env: NodeJS.ProcessEnv = process.env): string {
  const uid = process.getuid?.() ?? 0;
  const own = env['FF_LOG_DIR'];
  if (own !== undefined && own !== '') return own;
  if (uid === 0) return '/var/log/fastfreeze';
  return join(env['XDG_STATE_HOME'] ?? join(homeDirectory(env), '.local', 'state'), 'fastfreeze', 'log');
}

/** Take `name` for a job of ours. A directory that a dead job left is cleared first. */
export function claimJob(name: string): JobDirectory {
  const path = join(stateDirectory(), jobFolder(name));
  const lockFd = lockDirectory(path);
  if (lockFd === undefined) {
    throw new FastFreezeError({
      code: 'conflict',
      op: 'start a job named',
      subject: name,
      reason: 'a job of this name is running',
      hint: 'give this one another name with --container NAME',
    });
  }
  for (const entry of readdirSync(path)) {
    if (entry !== 'lock') rmSync(join(path, entry), { recursive: true, force: true });
  }
  writeFileSync(join(path, 'name'), name, { mode: 0o600 });
  return { name, path, lockFd };
}

/** The lock on a job's directory; undefined when a job that runs has it. */
function lockDirectory(path: string): number | undefined {
  const deadlineMs = Date.now() + ASKING_MS;
  for (;;) {
    const fd = openLock(path);
    if (fd === undefined) {
      // Somebody may only be asking what runs, which takes an instant.
      if (Date.now() > deadlineMs) return undefined;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      continue;
    }
    // A job that has just ended may have removed the directory between our two steps: then we hold a lock on nothing.
    const current = statSync(join(path, 'lock'), { throwIfNoEntry: false });
    if (current?.ino === fstatSync(fd).ino) return fd;
    closeSync(fd);
  }
}

const ASKING_MS = 300;

function openLock(path: string): number | undefined {
  try {
    mkdirSync(path, { mode: 0o700, recursive: true });
    return tryLock(join(path, 'lock'));
  } catch (error) {
    // The directory of a job that has just ended went away between the two.
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** The job has ended: nothing of it stays. */
export function releaseJob(job: JobDirectory): void {
  // Moved away first: a job of the same name that starts at this moment makes a directory of its own.
  const away = `${job.path}.${randomBytes(4).toString('hex')}`;
  try {
    renameSync(job.path, away);
    rmSync(away, { recursive: true, force: true });
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  } finally {
    closeSync(job.lockFd);
  }
}

/** Names of the jobs that run now, in order. */
export function runningJobs(): string[] {
  const base = stateDirectory(process.env, 'visit');
  return (
    readdirSync(base)
      // With a dot in its name it is what a job that has just ended left to be removed.
      .filter((folder) => !folder.includes('.') && isRunning(join(base, folder)))
      .map((folder) => readName(join(base, folder)))
      .filter((name) => name !== undefined)
      .sort()
  );
}

/** The one job meant: by name, or the only one there is. */
export function findJob(name: string | undefined): { name: string; path: string } {
  const base = stateDirectory(process.env, 'visit');
  const running = runningJobs();
  const op = 'find the job';
  if (name !== undefined) {
    if (!running.includes(name)) {
      throw new FastFreezeError({
        code: 'not-found',
        op,
        subject: name,
        reason: running.length === 0 ? 'no job is running' : `running are: ${running.join(', ')}`,
        hint: 'start it with fastfreeze run; jobs of another user are not seen',
      });
    }
    return { name, path: join(base, jobFolder(name)) };
  }
  const [only, ...others] = running;
  if (only === undefined) {
    throw new FastFreezeError({
      code: 'not-found',
      op,
      reason: 'no job is running',
      hint: 'start one with fastfreeze run; jobs of another user are not seen',
    });
  }
  if (others.length > 0) {
    throw new FastFreezeError({
      code: 'usage',
      op: 'choose a job',
      reason: `several are running: ${running.join(', ')}`,
      hint: 'name one of them',
    });
  }
  return { name: only, path: join(base, jobFolder(only)) };
}

/** Read the token that proves to the supervisor that we may look into its directory. */
export function readToken(jobPath: string): string {
  return readFileSync(join(jobPath, 'token'), 'utf8').trim();
}

function readName(path: string): string | undefined {
  try {
    return readFileSync(join(path, 'name'), 'utf8');
  } catch {
    // It has just started or just ended.
    return undefined;
  }
}

function isRunning(path: string): boolean {
  try {
    return isLocked(join(path, 'lock'));
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR')) return false;
    throw error;
  }
}

function privateDirectory(path: string, uid: number, purpose: 'own' | 'visit'): string {
  mkdirSync(path, { mode: 0o700, recursive: true });
  const stat = lstatSync(path);
  // Root may look after a user's jobs, but never keeps its own where a user could reach them.
  const mine = stat.uid === uid || (uid === 0 && purpose === 'visit');
  if (!stat.isDirectory() || !mine || (stat.mode & 0o077) !== 0) {
    throw new FastFreezeError({
      code: 'conflict',
      op: 'use the state directory',
      subject: path,
      reason: 'it must be a directory of your own that nobody else may enter (0700)',
      hint: `rm -r it or chmod 700 it, or set FF_STATE_DIR`,
    });
  }
  return path;
}

/** A folder name for any job name, short because sockets lie in it; `name` inside tells which job it is. */
function jobFolder(name: string): string {
  const plain = name.replace(/[^A-Za-z0-9_-]/g, '_');
  if (plain === name && name.length <= MAX_FOLDER_LENGTH) return name;
  const mark = createHash('sha256').update(name).digest('hex').slice(0, 10);
  return `${plain.slice(0, MAX_FOLDER_LENGTH - 11)}~${mark}`;
}

const MAX_FOLDER_LENGTH = 32;
