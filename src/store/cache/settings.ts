// SPDX-License-Identifier: Apache-2.0
import { accessSync, constants } from 'node:fs';
import { delimiter, isAbsolute, join, resolve } from 'node:path';
import { FastFreezeError } from '../../base/errors.js';
import { given, wrongSetting } from '../object/settings.js';
import { readRetrySettings } from '../object/retry.js';
import { readToken } from './token.js';

export interface CacheSettings {
  /** Where objects are put together on their way. */
  readonly stagingDirectory: string;
  /** What one image may have: with more, GitHub would evict its first objects for its last. */
  readonly totalBytes: number;
  /** For how long what fails for a moment is tried again. */
  readonly retryMs: number;
  /** How long an entry that somebody has begun is waited for. Longer than a commit may take: then its writer is dead. */
  readonly settleMs: number;
}

const GIB = 2 ** 30;
/** What GitHub gives a repository. */
const DEFAULT_LIMIT_GB = 10;
const DEFAULT_RETRY_MS = 120_000;
/** A commit that takes longer is given up. */
export const COMMIT_TIMEOUT_MS = 45_000;

/** Where this process is no step of a GitHub Action, or a setting cannot be meant: `usage`. */
export function readCacheSettings(url: string, env: NodeJS.ProcessEnv): CacheSettings {
  const missing = ['ACTIONS_RESULTS_URL', 'ACTIONS_RUNTIME_TOKEN'].filter((name) => given(env, name) === undefined);
  if (missing.length > 0) {
    throw refuse(
      url,
      'usage',
      `there is no cache here: ${missing.join(' and ')} ${missing.length === 1 ? 'is' : 'are'} not set`,
    );
  }
  if (isEnterpriseServer(env) || given(env, 'ACTIONS_CACHE_SERVICE_V2') === undefined) {
    throw refuse(url, 'usage', 'this server has only the old cache service, which loses entries silently');
  }
  const text = given(env, 'FF_CACHE_LIMIT_GB');
  const limitGb = text === undefined ? DEFAULT_LIMIT_GB : Number(text);
  if (!(limitGb > 0 && limitGb <= MAX_LIMIT_GB)) {
    throw wrongSetting('FF_CACHE_LIMIT_GB', text ?? '', `the gigabytes that the repository has, up to ${MAX_LIMIT_GB}`);
  }
  return {
    stagingDirectory: stagingDirectory(env),
    totalBytes: Math.floor(limitGb * GIB),
    retryMs: readRetrySettings(env).deadlineMs ?? DEFAULT_RETRY_MS,
    // A commit that took all of its time is still in time: see `createIfAbsent`.
    settleMs: 2 * COMMIT_TIMEOUT_MS + 15_000,
  };
}

const MAX_LIMIT_GB = 100_000;

/** Not in the runner's own: it empties that when the job is over, and an image may be on its way for longer. */
function stagingDirectory(env: NodeJS.ProcessEnv): string {
  const [wanted, runners] = [given(env, 'TMPDIR'), given(env, 'RUNNER_TEMP')];
  if (wanted === undefined || !isAbsolute(wanted)) return '/var/tmp';
  return runners !== undefined && `${resolve(wanted)}/`.startsWith(`${resolve(runners)}/`) ? '/var/tmp' : wanted;
}

/** What can be known without asking the service: `host` where a tool is missing, `store` where the token does not suffice. */
export function refuseWithoutMeans(url: string, env: NodeJS.ProcessEnv, nowMs: number): void {
  for (const tool of ['tar', 'zstd', 'zstdmt', 'unzstd']) {
    // Without zstd the client packs otherwise, and then takes what is there for not there.
    if (!isOnPath(tool, env['PATH'])) throw refuse(url, 'host', `${tool} is not on PATH`, 'apt-get install tar zstd');
  }
  const { expiresAtMs } = readToken(env['ACTIONS_RUNTIME_TOKEN'] ?? '');
  if (expiresAtMs !== undefined && expiresAtMs <= nowMs) {
    throw refuse(url, 'store', `the token of this job has expired (${new Date(expiresAtMs).toISOString()})`);
  }
}

/** Pull requests from forks and the like may only read: better known before a job has run for hours. */
export function refuseReadOnly(url: string, env: NodeJS.ProcessEnv): void {
  const mode = (env['ACTIONS_CACHE_MODE'] ?? '').trim().toLowerCase();
  if (mode === 'none' || mode === 'read' || mode === 'write-only') {
    const reason = `cache-mode is ${mode}: images need to be written and read`;
    throw refuse(url, 'store', reason, 'set cache-mode: write for this job, or use --image-url s3://...');
  }
  if (readToken(env['ACTIONS_RUNTIME_TOKEN'] ?? '').canWrite) return;
  throw refuse(
    url,
    'store',
    'this run may only read the cache (a pull request from a fork, or an event that others trigger)',
  );
}

function isEnterpriseServer(env: NodeJS.ProcessEnv): boolean {
  const server = given(env, 'GITHUB_SERVER_URL');
  if (server === undefined || !URL.canParse(server)) return false;
  const host = new URL(server).hostname.toLowerCase();
  return host !== 'github.com' && !host.endsWith('.ghe.com') && !host.endsWith('.localhost');
}

function isOnPath(tool: string, path = ''): boolean {
  return path.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, tool), constants.X_OK);
      return true;
    } catch {
      return false; // Not in this one.
    }
  });
}

const ELSEWHERE = 'cache: is for a step of a GitHub Action on github.com; use s3:, gs: or file: elsewhere';

function refuse(url: string, code: 'usage' | 'host' | 'store', reason: string, hint = ELSEWHERE): FastFreezeError {
  return new FastFreezeError({ code, op: 'use', subject: url, reason, hint });
}
