// SPDX-License-Identifier: Apache-2.0
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LIBRARY_FOLDER, ROOT_FOLDER, libraryDirOf } from '../../base/installation.js';

export { CURRENT_LINK, ROOT_FOLDER, defaultHome, installHomes, libraryDirOf } from '../../base/installation.js';

/** The other folder names of an installation; nothing else spells them out. */
export const RUNTIME_PREFIX = 'runtime-';
export const BUILDING_PREFIX = '.building-';
export const PACKAGES_FILE = 'packages.json';
export const LICENSES_FILE = 'LICENSES';

const LOADER = `${LIBRARY_FOLDER}/ld-linux-x86-64.so.2`;
const CRIU = 'usr/sbin/criu';

/** Codecs that the engine loads from the runtime, so that it does not depend on the machine's. */
export const CODEC_LIBRARIES = ['liblz4.so.1', 'libzstd.so.1', 'libxxhash.so.0'] as const;

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

/**
 * How to start the CRIU of a runtime: by its own loader, with its own libraries, because the machine's
 * C library may be older than the one it was linked with.
 */
export function criuCommand(root: string): string[] {
  return [join(root, LOADER), '--library-path', libraryDirOf(root), criuPath(root)];
}
