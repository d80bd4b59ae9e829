// SPDX-License-Identifier: Apache-2.0
import { listProc, readProc, readProcLink, statSeen } from '../linux/proc.js';
import type { TreeProcess } from './tree.js';

/** A regular file that the application can change, by a descriptor or a mapping that it has. */
export interface OpenFile {
  readonly path: string;
  readonly lengthBytes: number;
  /** It has a descriptor that appends. */
  readonly isAppended: boolean;
}

/**
 * Files that a tree has open for writing or mapped for shared writing, where they have a name. Files below `except` are
 * ours: CRIU's parasite has its log open in the application.
 */
export function readOpenFiles(tree: readonly TreeProcess[], except: string): OpenFile[] {
  const found = new Map<string, OpenFile>();
  const add = (file: OpenFile | undefined): void => {
    if (file === undefined || [except, '/proc', '/sys'].some((path) => file.path.startsWith(`${path}/`))) return;
    const isAppended = file.isAppended || found.get(file.path)?.isAppended === true;
    found.set(file.path, { ...file, isAppended });
  };
  for (const { pid } of tree) {
    for (const fd of listProc(`/proc/${pid}/fd`)) add(openFile(pid, fd));
    for (const file of mappedFiles(pid)) add(file);
  }
  return [...found.values()];
}

function openFile(pid: number, fd: number): OpenFile | undefined {
  const link = `/proc/${pid}/fd/${fd}`;
  const flags = Number.parseInt(/^flags:\s*(\d+)/m.exec(readProc(`/proc/${pid}/fdinfo/${fd}`) ?? '')?.[1] ?? '0', 8);
  if ((flags & O_ACCMODE) === 0 || (flags & O_PATH) !== 0) return undefined;
  const file = statSeen(link);
  // One without a name travels in the image.
  if (file?.isFile() !== true || file.nlink === 0n) return undefined;
  const path = readProcLink(link);
  if (path?.startsWith('/') !== true) return undefined;
  return { path, lengthBytes: Number(file.size), isAppended: (flags & O_APPEND) !== 0 };
}

const O_ACCMODE = 0o3;
const O_APPEND = 0o2000;
const O_PATH = 0o10000000;

function* mappedFiles(pid: number): Generator<OpenFile> {
  for (const line of (readProc(`/proc/${pid}/maps`) ?? '').split('\n')) {
    const path = /^\S+ .w.s \S+ \S+ [1-9]\d*\s+(\/.*)$/.exec(line)?.[1]?.replaceAll('\\012', '\n');
    // One that was removed travels in the image. Its inode says nothing here: on an overlay it is that of the layer below.
    const file = path === undefined ? undefined : statSeen(path);
    if (path === undefined || file?.isFile() !== true) continue;
    yield { path, lengthBytes: Number(file.size), isAppended: false };
  }
}
