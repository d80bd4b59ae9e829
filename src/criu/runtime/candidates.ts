// SPDX-License-Identifier: Apache-2.0
import { constants } from 'node:fs';
import { access, realpath, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { chosenRoots, currentRoot } from '../../base/installation.js';
import { criuCommand, criuPath, installHomes, libraryDirOf, packagedRuntime } from './layout.js';
import { isInUserNamespace } from './privilege.js';

/** A CRIU that may work. */
export interface Candidate {
  readonly source: 'FF_CRIU' | 'package' | 'PATH' | 'installed';
  /** The executable: what the answer of a check is remembered by, and what errors name. */
  readonly path: string;
  readonly command: readonly string[];
  readonly root?: string;
  readonly libraryDir?: string;
  /** Set when it must not be tried at all. */
  readonly refused?: string;
}

/** What $FF_CRIU names: an executable, a runtime's `root` folder or an installation; undefined when it is not set. */
export async function chosenCandidate(env: NodeJS.ProcessEnv): Promise<Candidate | undefined> {
  const chosen = env['FF_CRIU'];
  if (chosen === undefined || chosen === '') return undefined;
  for (const root of chosenRoots(env)) {
    if (await isExecutable(criuPath(root))) return { ...inRuntime(await realpath(root)), source: 'FF_CRIU' };
  }
  // Absolute: it is run in other directories.
  const path = chosen.includes('/') ? resolve(chosen) : ((await onPath(chosen, env))[0] ?? chosen);
  const refused = (await isExecutable(path)) ? {} : { refused: 'there is no such executable file' };
  return { source: 'FF_CRIU', path, command: [path], ...refused };
}

/** Every other CRIU on this machine, in the order in which they are tried. */
export async function otherCandidates(
  env: NodeJS.ProcessEnv,
  packaged: string = packagedRuntime(),
): Promise<Candidate[]> {
  const ours = (await isExecutable(criuPath(packaged))) ? await realpath(packaged) : undefined;
  const brought = ours === undefined ? [] : [{ ...inRuntime(ours), source: 'package' as const }];
  const paths = await onPath('criu', env);
  const system = paths.map((path): Candidate => ({ source: 'PATH', path, command: [path] }));
  const installed = await Promise.all(installHomes(env).map(async (home) => await installedCandidate(home)));
  // The one that came with us first: it is the one that this version was tried with, and as trusted as our own code.
  return [...brought, ...system, ...installed.filter((candidate) => candidate !== undefined)];
}

/** The current runtime below an installation's folder. Its path is resolved: a later install must not pull it away. */
export async function installedCandidate(home: string): Promise<Candidate | undefined> {
  let root;
  try {
    root = await realpath(currentRoot(home));
  } catch {
    return undefined;
  }
  const candidate = inRuntime(root);
  const refused = (await isOwnerTrusted(root)) ? {} : { refused: 'it belongs to another user' };
  return { ...candidate, source: 'installed', ...refused };
}

function inRuntime(root: string): Omit<Candidate, 'source'> {
  return { path: criuPath(root), command: criuCommand(root), root, libraryDir: libraryDirOf(root) };
}

/** Debian keeps criu in an sbin that is not on a normal user's PATH. */
const SYSTEM_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

async function onPath(name: string, env: NodeJS.ProcessEnv): Promise<string[]> {
  const folders = [...(env['PATH'] ?? '').split(':'), ...SYSTEM_FOLDERS].filter((folder) => folder.startsWith('/'));
  const found = new Map<string, string>();
  for (const folder of folders) {
    const path = join(folder, name);
    if (!(await isExecutable(path))) continue;
    const real = await realpath(path);
    if (!found.has(real)) found.set(real, path);
  }
  return [...found.values()];
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

const OVERFLOW_ID = 65534;

/** With a kept HOME, root would otherwise execute what a normal user put there. */
async function isOwnerTrusted(root: string): Promise<boolean> {
  const { uid } = await stat(root);
  return uid === 0 || uid === process.geteuid?.() || (uid === OVERFLOW_ID && isInUserNamespace());
}
