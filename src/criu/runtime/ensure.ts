// SPDX-License-Identifier: Apache-2.0
import { realpath } from 'node:fs/promises';
import type { Bundle } from './bundle.js';
import { packBundle } from './bundle.js';
import type { CriuRuntime, FindOptions } from './find.js';
import { findCriu } from './find.js';
import type { Installation, InstallOptions } from './install-runtime.js';
import { installRuntime } from './install-runtime.js';
import { defaultHome } from './layout.js';

export interface EnsureOptions extends Omit<InstallOptions, 'home'>, Pick<FindOptions, 'cacheDirectory'> {
  /** The folder to install into; the default one is only a default. */
  readonly home?: string;
  /** Pack the runtime into this file afterwards. */
  readonly bundleFile?: string;
}

export interface Ensured {
  readonly action: 'found' | Installation['action'];
  readonly runtime: CriuRuntime;
  readonly installation?: Installation;
  readonly bundle?: Bundle;
}

/** Use the CRIU that works here, else install one; then pack it where that is wanted. */
export async function ensureRuntime(options: EnsureOptions): Promise<Ensured> {
  const home = options.home ?? defaultHome(options.env);
  // A named folder, a bundle to install or one to make all mean a private runtime, not just any CRIU.
  const isAnyGood =
    !options.force && options.home === undefined && options.bundle === undefined && options.bundleFile === undefined;
  const found = isAnyGood ? await findWorking(options) : undefined;
  const isOurs = found?.source === 'installed' && (await isBelow(found.root, home));
  // One of ours is looked at more closely: its libraries may be gone although its CRIU works.
  if (found !== undefined && !isOurs) return { action: 'found', runtime: found };
  const installation = await installRuntime({ ...options, home });
  const { action, runtime } = installation;
  if (options.bundleFile === undefined || runtime.root === undefined) return { action, runtime, installation };
  options.onStep(`packing ${runtime.root}`);
  const bundle = await packBundle(runtime.root, options.bundleFile, options.signal);
  return { action, runtime, installation, bundle };
}

/** A runtime's path is resolved, and a home may be, or lie behind, a link. */
async function isBelow(root: string | undefined, home: string): Promise<boolean> {
  const resolved = await realpath(home).catch(() => home);
  return root?.startsWith(`${resolved}/`) ?? false;
}

/** Only a $FF_CRIU that does not work is an error here: that there is none is why somebody installs. */
async function findWorking(options: EnsureOptions): Promise<CriuRuntime | undefined> {
  try {
    return await findCriu(options);
  } catch (error) {
    const chosen = options.env['FF_CRIU'];
    if (options.signal?.aborted === true || (chosen !== undefined && chosen !== '')) throw error;
    return undefined;
  }
}
