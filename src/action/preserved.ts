// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { info, warning } from '@actions/core';
import { valueOf } from '../batch/system.js';
import { isBelow } from '../files/roots.js';
import { type Inputs, workspaceOf } from './inputs.js';

export type Preserved = Pick<Inputs, 'preservePaths' | 'preserveExcept'>;

/** Says what of the preserved files is left out, and what cannot be meant: one that is not there, and credentials of this run. */
export function tellPreserved(preserved: Preserved, env: NodeJS.ProcessEnv): void {
  for (const path of preserved.preservePaths) {
    if (existsSync(path)) continue;
    warning(`preserve-path: ${path} is not there yet: it travels if the command makes it, or an image has it.`, {
      title: 'fastfreeze',
    });
  }
  for (const path of jobCredentials(preserved, env)) info(`Credentials of this job, not in the image: ${path}`);
  for (const { path, what, remedy } of credentialsIn(preserved, env)) {
    warning(
      `${path} holds ${what}: whoever can read the image has it, and the next run gets this one back instead of its own. Try: ${remedy}`,
      { title: 'fastfreeze: credentials in preserve-path' },
    );
  }
}

/**
 * What google-github-actions/auth leaves in the workspace: made anew for each job, and removed at its end. A restore that set the new one
 * aside would leave later steps, and us, without.
 */
export function jobCredentials({ preservePaths }: Preserved, env: NodeJS.ProcessEnv): string[] {
  const inFolders = [workspaceOf(env), ...preservePaths].flatMap((folder) =>
    (isDirectory(folder) ? readdirSync(folder) : []).map((name) => join(folder, name)),
  );
  const all = [...inFolders, ...googleFile(env)].filter((path) => /^gha-creds-.*\.json$/.test(basename(path)));
  return [...new Set(all)].filter((path) => preservePaths.some((root) => isBelow(path, root)));
}

export interface Credentials {
  readonly path: string;
  readonly what: string;
  readonly remedy: string;
}

/** What else is known to hold some, and would be in the image: it is of use to the command, perhaps, and so not left out unasked. */
export function credentialsIn(preserved: Preserved, env: NodeJS.ProcessEnv): Credentials[] {
  const { preservePaths, preserveExcept } = preserved;
  const leftOut = [...preserveExcept, ...jobCredentials(preserved, env)];
  const travels = (path: string): boolean =>
    preservePaths.some((root) => path === root || isBelow(path, root)) &&
    !leftOut.some((one) => path === one || isBelow(path, one));
  const folders = [...new Set([workspaceOf(env), ...preservePaths])];
  const docker = valueOf(env, 'DOCKER_CONFIG') ?? join(valueOf(env, 'HOME') ?? '/', '.docker');
  const except = (path: string): string => `preserve-except: ${path}`;
  const found = [
    ...folders
      .map((folder) => join(folder, '.git/config'))
      .filter((path) => says(path, /^\s*extraheader\s*=\s*AUTHORIZATION/im))
      .map((path) => {
        const remedy = `persist-credentials: false of actions/checkout; or ${except(path)}`;
        return { path, what: "the job's token", remedy };
      }),
    ...folders
      .map((folder) => join(folder, '.npmrc'))
      // One that names a variable holds none.
      .filter((path) => says(path, /_(?:auth|authToken|password)\s*=\s*(?!\s|\$\{)/))
      .map((path) => ({ path, what: 'a token of a registry', remedy: except(path) })),
    ...[join(docker, 'config.json')]
      .filter((path) => says(path, /"(?:auth|identitytoken)"\s*:\s*"[^"]/))
      .map((path) => ({ path, what: 'logins of docker', remedy: except(path) })),
    ...googleFile(env).map((path) => ({ path, what: 'credentials for Google', remedy: except(path) })),
  ];
  return found.filter(({ path }) => travels(path));
}

function googleFile(env: NodeJS.ProcessEnv): string[] {
  const path = valueOf(env, 'GOOGLE_APPLICATION_CREDENTIALS');
  return path !== undefined && existsSync(path) ? [path] : [];
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function says(path: string, pattern: RegExp): boolean {
  try {
    return pattern.test(readFileSync(path, 'utf8'));
  } catch {
    return false; // There is no such file, or none that we may read.
  }
}
