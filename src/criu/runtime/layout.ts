// SPDX-License-Identifier: Apache-2.0
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { homeDirectory } from '../../base/home.js';

/** The folder names of an installation; nothing else spells them out. */
export const CURRENT_LINK = 'current';
export const RUNTIME_PREFIX = 'runtime-';
export const BUILDING_PREFIX = '.building-';
export const ROOT_FOLDER = 'root';
export const PACKAGES_FILE = 'packages.json';
export const LICENSES_FILE = 'LICENSES';

const LIBRARY_FOLDER = 'usr/lib/x86_64-linux-gnu';
const LOADER = `${LIBRARY_FOLDER}/ld-linux-x86-64.so.2`;
const CRIU = 'usr/sbin/criu';

/** Codecs that the engine loads from the runtime, so that it does not depend on the machine's. */
export const CODEC_LIBRARIES = ['liblz4.so.1', 'libzstd.so.1', 'libxxhash.so.0'] as const;

/** Where an installed runtime may be, the first one that works wins. FF_HOME replaces them all. */
export function installHomes(env: NodeJS.ProcessEnv): string[] {
  const chosen = env['FF_HOME'];
  if (chosen !== undefined && chosen !== '') return [chosen];
  return [SYSTEM_HOME, userHome(env)];
}

/** Where `install` puts a new one. Root may have no rights beyond files, as when a container image is built. */
export function defaultHome(env: NodeJS.ProcessEnv): string {
  const chosen = env['FF_HOME'];
  if (chosen !== undefined && chosen !== '') return chosen;
  return process.geteuid?.() === 0 ? SYSTEM_HOME : userHome(env);
}

const SYSTEM_HOME = '/opt/fastfreeze';

function userHome(env: NodeJS.ProcessEnv): string {
  return join(homeDirectory(env), '.local/share/fastfreeze');
}

/**
 * Where the self-contained package keeps its runtime, beside its `lib/`. `install` never writes there, even where the package
 * lies in the folder that it installs into.
 */
export function packagedRuntime(): string {
  return fileURLToPath(new URL(`../../../criu/${ROOT_FOLDER}`, import.meta.url));
}

export function criuPath(root: string): string {
  return join(root, CRIU);
}

export function libraryDirOf(root: string): string {
  return join(root, LIBRARY_FOLDER);
}

/**
 * How to start the CRIU of a runtime: by its own loader, with its own libraries, because the machine's
 * C library may be older than the one it was linked with.
 */
export function criuCommand(root: string): string[] {
  return [join(root, LOADER), '--library-path', libraryDirOf(root), criuPath(root)];
}
