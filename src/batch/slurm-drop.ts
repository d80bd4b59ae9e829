// SPDX-License-Identifier: Apache-2.0
import { lstatSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import type { BatchRun } from './system.js';

/** The prolog makes a folder here for each job, which only its user may enter; in memory, so that no secret gets to a disk. */
export const DROP_BASE = '/run/fastfreeze-slurm';

/** What a job leaves for the epilog, which has neither its environment nor its arguments. */
export interface Drop extends BatchRun {
  readonly jobId: string;
  readonly startedAtMs: number;
  /** What a store needs to be reached, and what tells where the job's state lies. */
  readonly environment: Readonly<Record<string, string>>;
}

const FILE = 'job.json';

/** Not the passphrase: what lies in a spool is encrypted already. */
const NEEDED =
  /^(?:AWS_|GOOGLE_|GCE_|CLOUDSDK_|STORAGE_EMULATOR_HOST$|FF_(?!PASSPHRASE)|SLURM_CONF$|XDG_|SSL_CERT|NODE_EXTRA_CA_CERTS$|(?:HTTPS?|ALL|NO)_PROXY$|PATH$|HOME$|TMPDIR$|TZ$)/iu;

/** The folder that the prolog has made for this job; undefined where none has, or where it is not ours alone. */
export function dropDirectory(jobId: string, base = DROP_BASE): string | undefined {
  const path = join(base, jobId);
  const stat = lstatSync(path, { throwIfNoEntry: false });
  const isOurs = stat?.isDirectory() === true && stat.uid === process.getuid?.() && (stat.mode & 0o077) === 0;
  return isOurs ? path : undefined;
}

export function writeDrop(directory: string, drop: Omit<Drop, 'environment'>, env: NodeJS.ProcessEnv): void {
  const environment = Object.fromEntries(Object.entries(env).filter(([name]) => NEEDED.test(name)));
  const path = join(directory, FILE);
  // A restart of the job on this node: the file is another attempt's.
  rmSync(path, { force: true });
  writeFileSync(path, JSON.stringify({ ...drop, environment }), { mode: 0o600, flag: 'wx' });
}

/** Undefined where the job left nothing: no job of ours. */
export function readDrop(directory: string): Drop | undefined {
  const path = join(directory, FILE);
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return undefined;
  try {
    const drop = JSON.parse(readFileSync(path, 'utf8')) as Drop;
    const texts = [drop.jobId, drop.jobName, drop.imageUrl, drop.spoolDirectory ?? ''];
    const isWhole =
      texts.every((text) => typeof text === 'string') && [drop.keep, drop.startedAtMs].every(Number.isFinite);
    if (isWhole && typeof drop.environment === 'object') return drop;
  } catch (error) {
    throw asFastFreezeError(error, 'read', path);
  }
  throw new FastFreezeError({ code: 'internal', op: 'read', subject: path, reason: 'it is not what batch run writes' });
}
