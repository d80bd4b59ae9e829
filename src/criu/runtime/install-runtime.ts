// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { FastFreezeError } from '../../base/errors.js';
import { buildRuntime } from './build.js';
import { installedCandidate } from './candidates.js';
import { checkCriu } from './check.js';
import type { Verdict } from './check.js';
import type { CriuRuntime } from './find.js';
import { toRuntime, tryCandidate } from './find.js';
import { CODEC_LIBRARIES, PACKAGES_FILE, ROOT_FOLDER, RUNTIME_PREFIX, criuCommand, libraryDirOf } from './layout.js';
import type { PackageSet, TestedComparison } from './packages.js';
import { compareWithTested, packageSetId, readPackageSet, readTestedSet } from './packages.js';
import { publish, withBuildFolder } from './publish.js';
import { receiveBundle } from './receive.js';
import { unpackBundle } from './unpack.js';

export interface InstallOptions {
  /** The installation's folder: /opt/fastfreeze, ~/.local/share/fastfreeze or one that the user names. */
  readonly home: string;
  readonly env: NodeJS.ProcessEnv;
  readonly privileged: boolean;
  /** Make a new one although one is there. */
  readonly force: boolean;
  /** Install what does not work on this very machine: for container images. */
  readonly skipCheck: boolean;
  readonly bundle?: { readonly from: string; readonly sha256: string };
  readonly mirror?: string;
  readonly onStep: (message: string) => void;
  readonly signal?: AbortSignal;
}

export interface Installation {
  readonly action: 'installed' | 'already-installed';
  readonly runtime: CriuRuntime;
  readonly packages: PackageSet;
  readonly tested: TestedComparison;
}

/** Bring a private CRIU into `home`: from Debian packages or a bundle, checked before it is switched on. */
export async function installRuntime(options: InstallOptions): Promise<Installation> {
  const present = options.force || options.bundle !== undefined ? undefined : await presentRuntime(options);
  if (present !== undefined) return await describe('already-installed', present);
  return await withBuildFolder(options.home, async (folder) => {
    const built = join(folder, 'runtime');
    const root = join(built, ROOT_FOLDER);
    const packages =
      options.bundle === undefined
        ? await buildRuntime({ ...options, workFolder: folder, root })
        : await fetchBundle(options.bundle, folder, built, options);
    const tested = compareWithTested(packages, await readTestedSet());
    refuseIncomplete(root);
    options.onStep('checking that it works here');
    const verdict = await checked(root, packages, options);
    const id = packageSetId(packages);
    const existing = join(options.home, `${RUNTIME_PREFIX}${id}`);
    const replace = options.force || (existsSync(existing) && !(await isWhole(join(existing, ROOT_FOLDER))));
    const isNew = await publish(options.home, built, id, replace);
    const candidate = await installedCandidate(options.home);
    if (candidate === undefined) throw incomplete(options.home, 'it vanished while it was being installed');
    const action = isNew ? 'installed' : 'already-installed';
    return { action, runtime: toRuntime(candidate, verdict), packages, tested };
  });
}

/** The runtime that `home` has and that works, if it does. */
export async function presentRuntime(
  options: Pick<InstallOptions, 'home' | 'env' | 'privileged' | 'signal' | 'skipCheck'>,
): Promise<CriuRuntime | undefined> {
  const candidate = await installedCandidate(options.home);
  if (candidate?.root === undefined || !(await isWhole(candidate.root))) return undefined;
  const { env, privileged, signal } = options;
  const verdict = await tryCandidate(candidate, { env, privileged, ...(signal === undefined ? {} : { signal }) });
  if (verdict.works) return toRuntime(candidate, verdict);
  if (!options.skipCheck) return undefined;
  const packages = await readPackageSet(join(candidate.root, PACKAGES_FILE));
  return toRuntime(candidate, { works: true, version: packages.criuVersion, warning: verdict.reason });
}

async function describe(action: Installation['action'], runtime: CriuRuntime): Promise<Installation> {
  const packages = await readPackageSet(join(runtime.root ?? '', PACKAGES_FILE));
  return { action, runtime, packages, tested: compareWithTested(packages, await readTestedSet()) };
}

async function fetchBundle(
  bundle: { readonly from: string; readonly sha256: string },
  folder: string,
  built: string,
  options: InstallOptions,
): Promise<PackageSet> {
  const copy = join(folder, 'bundle');
  options.onStep(`fetching ${bundle.from}`);
  await receiveBundle(bundle.from, copy, bundle.sha256, options.signal);
  options.onStep('its SHA-256 is right; unpacking');
  return await unpackBundle(copy, built, options.signal);
}

function refuseIncomplete(root: string): void {
  const missing = CODEC_LIBRARIES.filter((name) => !existsSync(join(libraryDirOf(root), name)));
  if (missing.length > 0) throw incomplete(root, `it lacks ${missing.join(', ')}`);
}

/** Whether the tree at least starts and has its libraries: a half-deleted one must not count as installed. */
async function isWhole(root: string): Promise<boolean> {
  const files = [PACKAGES_FILE, ...CODEC_LIBRARIES.map((name) => join('usr/lib/x86_64-linux-gnu', name))];
  if (files.some((name) => !existsSync(join(root, name)))) return false;
  const verdict = await checkCriu(criuCommand(root), { privileged: true });
  return verdict.works || verdict.version !== undefined;
}

async function checked(
  root: string,
  packages: PackageSet,
  options: InstallOptions,
): Promise<Verdict & { works: true }> {
  const verdict = await checkCriu(criuCommand(root), options);
  if (verdict.works) return verdict;
  if (options.skipCheck && verdict.version !== undefined) {
    return { works: true, version: packages.criuVersion, warning: verdict.reason };
  }
  throw new FastFreezeError({
    code: 'host',
    op: 'install CRIU',
    subject: packages.criuVersion,
    reason: `it does not work on this machine: ${verdict.reason}`,
    hint: 'fastfreeze doctor tells more; --no-check installs it nevertheless, for a container image',
  });
}

function incomplete(subject: string, reason: string): FastFreezeError {
  return new FastFreezeError({ code: 'host', op: 'install CRIU into', subject, reason, hint: 'run it again' });
}
