// SPDX-License-Identifier: Apache-2.0
import { join, resolve } from 'node:path';
import { homeDirectory } from './home.js';

/** Where an installed runtime may be, the first one that works wins. FF_HOME replaces them all. Absolute, whatever it says. */
export function installHomes(env: NodeJS.ProcessEnv): string[] {
  const chosen = env['FF_HOME'];
  if (chosen !== undefined && chosen !== '') return [resolve(chosen)];
  return [SYSTEM_HOME, userHome(env)];
}

/** Where `install` puts a new one. Root may have no rights beyond files, as when a container image is built. */
export function defaultHome(env: NodeJS.ProcessEnv): string {
  const chosen = env['FF_HOME'];
  if (chosen !== undefined && chosen !== '') return resolve(chosen);
  return process.geteuid?.() === 0 ? SYSTEM_HOME : userHome(env);
}

/** The roots of runtimes that $FF_CRIU may mean: it names an installation, a runtime, or the root itself. Empty when it is not set. */
export function chosenRoots(env: NodeJS.ProcessEnv): string[] {
  const chosen = env['FF_CRIU'];
  if (chosen === undefined || chosen === '') return [];
  return [currentRoot(chosen), join(chosen, ROOT_FOLDER), chosen];
}

/** The root of the runtime that an installation's folder has switched on. */
export function currentRoot(home: string): string {
  return join(home, CURRENT_LINK, ROOT_FOLDER);
}

export function libraryDirOf(root: string): string {
  return join(root, LIBRARY_FOLDER);
}

/** The folder names of an installation that more than its making needs; nothing else spells them out. */
export const CURRENT_LINK = 'current';
export const ROOT_FOLDER = 'root';
export const LIBRARY_FOLDER = 'usr/lib/x86_64-linux-gnu';

const SYSTEM_HOME = '/opt/fastfreeze';

function userHome(env: NodeJS.ProcessEnv): string {
  return join(homeDirectory(env), '.local/share/fastfreeze');
}
