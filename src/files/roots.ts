// SPDX-License-Identifier: Apache-2.0
import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';

/** The paths of `--preserve-path A:B --preserve-path C`, absolute, each once and none below another. */
export function preservedRoots(given: readonly string[], directory: string): string[] {
  const words = given.flatMap((one) => one.split(':')).filter((word) => word !== '');
  return joinRoots(words.map((word) => resolve(directory, word)));
}

/** Each path once, and none that another has in it already. */
export function joinRoots(paths: readonly string[]): string[] {
  const unique = [...new Set(paths)].sort();
  return unique.filter((path) => !unique.some((other) => other !== path && isBelow(path, other)));
}

/** Why a path cannot be preserved; undefined when it can. */
export function wrongRoot(path: string): string | undefined {
  if (path === '/') return 'the whole machine cannot travel in an image: name the directories of the application';
  const foreign = KERNEL_PATHS.find((one) => path === one || isBelow(path, one));
  if (foreign === undefined || path === '/dev/shm' || isBelow(path, '/dev/shm')) return undefined;
  return `what lies in ${foreign} belongs to the machine, not to the application`;
}

const KERNEL_PATHS = ['/proc', '/sys', '/dev'];

/** Whether a path lies within a directory, by their names alone; a directory does not lie within itself. */
export function isBelow(path: string, directory: string): boolean {
  return path.startsWith(directory === '/' ? '/' : `${directory}/`) && path !== directory;
}

/** A path without symbolic links, as far as it is there and we may look: what follows stays as it is written. */
export function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path === '/' ? path : join(realPath(dirname(path)), basename(path));
  }
}
