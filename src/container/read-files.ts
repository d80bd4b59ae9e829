// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { FastFreezeError, hasErrno } from '../base/errors.js';
import { listProc, readProc, readProcLink, statSeen } from '../linux/proc.js';
import type { TreeProcess } from './tree.js';

/** A file that the application reads and does not write: it must be the same wherever it continues. */
export interface ReadFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** Permission bits. */
  readonly mode: number;
  /** SHA-256 in hexadecimal digits; of a sampled file, of its samples. */
  readonly sha256: string;
  readonly sampled: boolean;
}

/** Remembers what it has hashed: libraries are the same at every checkpoint, and a frozen application waits. */
export interface FileHasher {
  /** What each path is now. A path where there is no regular file is left out, and one that cannot be read. */
  describe(paths: readonly string[]): Promise<ReadFile[]>;
  /** The hash of all of a file, if it is known and the file is still the same. */
  recall(path: string, stat: BigIntStats): string | undefined;
  /** Be told what somebody else has hashed, all of it. */
  remember(path: string, stat: BigIntStats, sha256: string): ReadFile;
}

/**
 * Regular files that a tree has mapped or open, by their names, in order, without those of `except` and all below them:
 * programs, libraries, data. What has no name any more is not among them.
 */
export function findReadFiles(tree: readonly TreeProcess[], except: readonly string[]): string[] {
  const found = new Set<string>();
  for (const { pid } of tree) {
    for (const line of (readProc(`/proc/${pid}/maps`) ?? '').split('\n')) {
      const path = /^\S+ \S+ \S+ \S+ [1-9]\d*\s+(\/.*)$/.exec(line)?.[1];
      if (path !== undefined) found.add(path.replaceAll('\\012', '\n'));
    }
    for (const fd of listProc(`/proc/${pid}/fd`)) {
      const path = readProcLink(`/proc/${pid}/fd/${fd}`);
      if (path?.startsWith('/') === true) found.add(path);
    }
  }
  const ours = ['/proc', '/sys', '/memfd:', ...MACHINES_CACHES, ...except];
  return [...found].filter((path) => !ours.some((one) => path === one || path.startsWith(`${one}/`))).sort();
}

/** Mapped by the C library, changed by daemons all the time, and other ones on every machine. */
const MACHINES_CACHES = ['/var/lib/sss/mc', '/var/cache/nscd', '/var/db/nscd', '/run/nscd', '/var/run/nscd'];

export function createFileHasher(options: { readonly maxWholeBytes?: number } = {}): FileHasher {
  const { maxWholeBytes = MAX_WHOLE_BYTES } = options;
  const known = new Map<string, { readonly key: string; readonly file: ReadFile }>();
  return {
    async describe(paths) {
      const files: ReadFile[] = [];
      // Together, too, they must not cost the time that a machine has which is about to be taken away.
      let leftBytes = maxWholeBytes;
      for (const path of paths) {
        const stat = statSeen(path);
        if (stat?.isFile() !== true) continue;
        const key = identity(stat);
        const before = known.get(path);
        let file = before?.key === key ? before.file : undefined;
        if (file === undefined) {
          const sampled = Number(stat.size) > leftBytes;
          file = await describeOne(path, sampled);
          if (file === undefined) continue;
          if (!sampled) leftBytes -= file.sizeBytes;
          known.set(path, { key, file });
        }
        files.push(file);
      }
      return files;
    },
    recall(path, stat) {
      const before = known.get(path);
      return before?.key === identity(stat) && !before.file.sampled ? before.file.sha256 : undefined;
    },
    remember(path, stat, sha256) {
      const file = { path, sizeBytes: Number(stat.size), mode: Number(stat.mode) & 0o7777, sha256, sampled: false };
      known.set(path, { key: identity(stat), file });
      return file;
    },
  };
}

/** What changes when a file becomes another one, or is written to. */
function identity({ dev, ino, size, mode, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mode, mtimeNs, ctimeNs].join(' ');
}

/** New files of more than this are looked at in places. */
const MAX_WHOLE_BYTES = 512 << 20;

/** A file that is not what it was, and how that shows. */
export interface ChangedFile {
  readonly file: ReadFile;
  readonly reason: string;
}

/** Those of the files that are not what they were. */
export async function findChangedReadFiles(files: readonly ReadFile[]): Promise<ChangedFile[]> {
  const changed: ChangedFile[] = [];
  for (const file of files) {
    const reason = await difference(file);
    if (reason !== undefined) changed.push({ file, reason });
  }
  return changed;
}

/**
 * Refuse to continue where a file is not what it was: code and data that the application takes for granted. Returns what
 * differs, in words, when `allow` is given. Throws `conflict`.
 */
export function refuseChangedReadFiles(
  changed: readonly ChangedFile[],
  allow: boolean,
  hint = OTHER_VERSION,
): string[] {
  const [first] = changed;
  if (first === undefined || allow) return changed.map(({ file, reason }) => `${file.path}: ${reason}`);
  throw new FastFreezeError({
    code: 'conflict',
    op: 'continue the application, which reads',
    subject: first.file.path,
    reason: first.reason,
    hint: `${hint}; --allow-inexact goes on with this one`,
  });
}

const OTHER_VERSION =
  'bring back the version that it had (the same container image or packages); images made with --carry-mapped have such files in them';

async function difference(file: ReadFile): Promise<string | undefined> {
  const now = await describeOne(file.path, file.sampled);
  if (now === undefined) return 'it is not there, or cannot be read';
  if (now.sizeBytes !== file.sizeBytes) return `it has ${now.sizeBytes} bytes here, and had ${file.sizeBytes}`;
  if (now.mode !== file.mode) return `it has mode ${now.mode.toString(8)} here, and had ${file.mode.toString(8)}`;
  if (now.sha256 === file.sha256) return undefined;
  return `its content is another one (SHA-256 ${now.sha256.slice(0, 16)}... here, and ${file.sha256.slice(0, 16)}... then)`;
}

/** A file system that does not answer must not keep a checkpoint for ever. */
async function describeOne(path: string, sampled: boolean): Promise<ReadFile | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(tooSlow(path)), MAX_READ_MS);
  });
  try {
    return await Promise.race([readAndHash(path, sampled), late]);
  } finally {
    clearTimeout(timer);
  }
}

const MAX_READ_MS = 120_000;

function tooSlow(path: string): FastFreezeError {
  return new FastFreezeError({
    code: 'store',
    op: 'read',
    subject: path,
    reason: `it takes longer than ${MAX_READ_MS / 1000} s`,
    hint: 'the application has it open; see whether its file system hangs',
  });
}

async function readAndHash(path: string, sampled: boolean): Promise<ReadFile | undefined> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'EACCES', 'EPERM', 'ENOTDIR', 'ENXIO')) return undefined;
    throw error;
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile()) return undefined;
    const hash = createHash('sha256');
    for (const [from, to] of sampled ? samples(stat.size) : [[0, stat.size] as const])
      await update(hash, file, from, to);
    return { path, sizeBytes: stat.size, mode: stat.mode & 0o7777, sha256: hash.digest('hex'), sampled };
  } finally {
    await file.close();
  }
}

async function update(hash: ReturnType<typeof createHash>, file: FileHandle, from: number, to: number): Promise<void> {
  const buffer = Buffer.allocUnsafe(Math.min(PIECE_BYTES, to - from));
  for (let at = from; at < to;) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, to - at), at);
    if (bytesRead === 0) return;
    hash.update(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
}

const PIECE_BYTES = 1 << 20;
const SAMPLES = 64;
const SAMPLE_BYTES = 64 << 10;

/** The same places for the same size: its beginning, its end, and between them at equal distances. */
function samples(sizeBytes: number): (readonly [number, number])[] {
  const distance = (sizeBytes - SAMPLE_BYTES) / SAMPLES;
  if (distance <= SAMPLE_BYTES) return [[0, sizeBytes]];
  return Array.from({ length: SAMPLES + 1 }, (_, i) => {
    const from = Math.floor(i * distance);
    return [from, Math.min(from + SAMPLE_BYTES, sizeBytes)] as const;
  });
}
