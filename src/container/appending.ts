// SPDX-License-Identifier: Apache-2.0
import { type Stats, readFileSync, readlinkSync, statSync } from 'node:fs';
import { FastFreezeError } from '../base/errors.js';
import { listProc } from '../linux/proc.js';
import type { TreeProcess } from './tree.js';

/** A regular file that the application appends to, and its length at the freeze. */
export interface AppendingFile {
  readonly path: string;
  readonly lengthBytes: number;
}

/**
 * The files that a frozen tree has open for appending. CRIU compares the sizes of all other open files at a restore,
 * but not of these. Files below `except` are ours: CRIU's parasite has its log open in the application.
 */
export function readAppending(tree: readonly TreeProcess[], except: string): AppendingFile[] {
  const found = new Map<string, AppendingFile>();
  for (const { pid } of tree) {
    for (const fd of listProc(`/proc/${pid}/fd`)) {
      const file = appendingFile(pid, fd);
      if (file !== undefined && !file.path.startsWith(`${except}/`)) found.set(file.path, file);
    }
  }
  return [...found.values()];
}

/**
 * Refuse to continue an application that would append to a file which is not as it left it: what it wrote after the
 * freeze would stand there twice, or be missing. Throws `conflict`. A file that does not exist is left to CRIU, which
 * says so.
 */
export function refuseChangedAppending(files: readonly AppendingFile[]): void {
  for (const { path, lengthBytes } of files) {
    const nowBytes = statIfThere(path)?.size;
    if (nowBytes === undefined || nowBytes === lengthBytes) continue;
    const grown = nowBytes > lengthBytes;
    throw new FastFreezeError({
      code: 'conflict',
      op: 'continue the application, which appends to',
      subject: path,
      reason: `the file had ${lengthBytes} bytes at the checkpoint and has ${nowBytes} now: ${
        grown ? 'what was added since would appear in it twice' : 'a part of it is missing'
      }`,
      hint: grown
        ? `if only this application writes to it, cut it back: truncate -s ${lengthBytes} ${quote(path)}`
        : 'bring the file back, or start over with --no-restore',
    });
  }
}

function appendingFile(pid: number, fd: number): AppendingFile | undefined {
  try {
    const flags = Number.parseInt(
      /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0',
      8,
    );
    if ((flags & O_APPEND) === 0 || (flags & O_ACCMODE) === 0 || (flags & O_PATH) !== 0) return undefined;
    const file = statSync(`/proc/${pid}/fd/${fd}`);
    // One without a name travels in the image.
    if (!file.isFile() || file.nlink === 0) return undefined;
    return { path: readlinkSync(`/proc/${pid}/fd/${fd}`), lengthBytes: file.size };
  } catch {
    // A zombie has no descriptors.
    return undefined;
  }
}

const O_ACCMODE = 0o3;
const O_APPEND = 0o2000;
const O_PATH = 0o10000000;

function statIfThere(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** As a shell takes it. */
function quote(path: string): string {
  return /^[\w./+-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}
