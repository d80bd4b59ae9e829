// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { warning } from '@actions/core';
import { valueOf } from '../batch/system.js';

/** Says what of the preserved files cannot be meant: one that is not there, and credentials, which the next run has new ones of. */
export function warnOfPreserved(paths: readonly string[], env: NodeJS.ProcessEnv): void {
  for (const path of paths) {
    if (existsSync(path)) continue;
    warning(`preserve-path: ${path} is not there yet: it travels if the command makes it, or an image has it.`, {
      title: 'fastfreeze',
    });
  }
  for (const path of credentialsIn(paths, env)) {
    warning(
      `${path} holds credentials, and would come back with the image, for those who can read it and too old to be used. ` +
        'Try: persist-credentials: false of actions/checkout; a preserve-path without that file',
      { title: 'fastfreeze: credentials in preserve-path' },
    );
  }
}

/** What actions/checkout and google-github-actions/auth leave, where they leave it, and whatever Google's SDK is pointed to. */
export function credentialsIn(paths: readonly string[], env: NodeJS.ProcessEnv): string[] {
  const google = valueOf(env, 'GOOGLE_APPLICATION_CREDENTIALS');
  const found = paths.flatMap((path) => [
    ...(isDirectory(path) ? readdirSync(path) : [])
      .filter((name) => /^gha-creds-.*\.json$/.test(name))
      .map((name) => join(path, name)),
    ...[join(path, '.git/config')].filter(hasToken),
    ...(google !== undefined && existsSync(google) && `${google}/`.startsWith(`${path}/`) ? [google] : []),
  ]);
  return [...new Set(found)];
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function hasToken(path: string): boolean {
  try {
    return /^\s*extraheader\s*=\s*AUTHORIZATION/im.test(readFileSync(path, 'utf8'));
  } catch {
    return false; // No repository, or none that we may read.
  }
}
