// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';

/** A path as the kernel has it: one character a byte, since names need not be UTF-8. */
export type BytePath = string;

/** What the image says of one file. Directories come before what they hold. */
export type FileEntry = { readonly path: BytePath } & (
  | ({ readonly type: 'directory' } & Attributes)
  | ({ readonly type: 'file' } & Attributes & FileData)
  | ({ readonly type: 'symlink'; readonly target: BytePath } & Attributes)
  | ({ readonly type: 'fifo' } & Attributes)
  /** Another name of a file that came before. */
  | { readonly type: 'hardlink'; readonly target: BytePath }
  /** A path that was to be preserved, where there was nothing. */
  | { readonly type: 'absent' }
  /** Something was there that is not in the image: a socket, a device, a file that could not be read. */
  | { readonly type: 'left' }
);

export interface Attributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly modifiedNs: bigint;
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

export interface FileData {
  readonly sizeBytes: number;
  /** Where the file has data: offset and length, ascending. All else of it is a hole. */
  readonly data: readonly (readonly [number, number])[];
}

/** Names of the two files of an image that hold preserved files: one entry a line, and their data one after the other. */
export const FILES_LIST = 'fastfreeze-files.list';
export const FILES_DATA = 'fastfreeze-files.data';

/** Likewise for files that the application only reads: a restore shows them where this machine's differ. */
export const CARRIED_LIST = 'fastfreeze-carried.list';
export const CARRIED_DATA = 'fastfreeze-carried.data';

export function toBytePath(path: string | Buffer): BytePath {
  return (typeof path === 'string' ? Buffer.from(path) : path).toString('latin1');
}

export function toBuffer(path: BytePath): Buffer {
  return Buffer.from(path, 'latin1');
}

/** As a person reads it. */
export function shown(path: BytePath): string {
  return toBuffer(path).toString('utf8');
}

/** One line of the list, with its end. */
export function formatEntry(entry: FileEntry): string {
  const line: Record<string, unknown> = { path: formatPath(entry.path), type: entry.type };
  if ('target' in entry) line['target'] = formatPath(entry.target);
  if ('mode' in entry) {
    line['mode'] = entry.mode.toString(8);
    line['uid'] = entry.uid;
    line['gid'] = entry.gid;
    line['modifiedNs'] = String(entry.modifiedNs);
    if (entry.xattrs.size > 0) {
      line['xattrs'] = Object.fromEntries([...entry.xattrs].map(([name, value]) => [name, value.toString('base64')]));
    }
  }
  if (entry.type === 'file') {
    line['sizeBytes'] = entry.sizeBytes;
    line['data'] = entry.data;
  }
  return `${JSON.stringify(line)}\n`;
}

/** The entry of one line. It comes from storage, so every field is looked at; throws `image`. */
export function parseEntry(text: string): FileEntry {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw damaged('a line is not JSON');
  }
  const line = record(json);
  const path = parsePath(line['path']);
  switch (line['type']) {
    case 'directory':
    case 'fifo':
      return { path, type: line['type'], ...parseAttributes(line) };
    case 'file':
      return { path, type: 'file', ...parseAttributes(line), ...parseData(line) };
    case 'symlink':
      return { path, type: 'symlink', target: bytes(line['target']), ...parseAttributes(line) };
    case 'hardlink':
      return { path, type: 'hardlink', target: parsePath(line['target']) };
    case 'absent':
    case 'left':
      return { path, type: line['type'] };
    default:
      throw damaged(`${shown(path)} is of a type that this program does not know`);
  }
}

function parseAttributes(line: Record<string, unknown>): Attributes {
  const { mode, modifiedNs } = line;
  if (typeof mode !== 'string' || !/^[0-7]{1,4}$/.test(mode)) throw damaged('a mode is wrong');
  if (typeof modifiedNs !== 'string' || !/^-?\d{1,19}$/.test(modifiedNs)) throw damaged('a time is wrong');
  const xattrs = new Map<string, Buffer>();
  for (const [name, value] of Object.entries(line['xattrs'] === undefined ? {} : record(line['xattrs']))) {
    if (typeof value !== 'string' || name === '' || name.includes('\0'))
      throw damaged('an extended attribute is wrong');
    xattrs.set(name, Buffer.from(value, 'base64'));
  }
  return {
    mode: Number.parseInt(mode, 8),
    uid: count(line['uid'], MAX_ID),
    gid: count(line['gid'], MAX_ID),
    modifiedNs: BigInt(modifiedNs),
    xattrs,
  };
}

const MAX_ID = 0xfffffffe;

function parseData(line: Record<string, unknown>): FileData {
  const sizeBytes = count(line['sizeBytes'], Number.MAX_SAFE_INTEGER);
  if (!Array.isArray(line['data'])) throw damaged('the data of a file are not a list');
  let end = 0;
  const data = line['data'].map((one: unknown): readonly [number, number] => {
    if (!Array.isArray(one) || one.length !== 2) throw damaged('the data of a file are not pairs');
    const from = count(one[0], sizeBytes);
    const length = count(one[1], sizeBytes - from);
    if (from < end) throw damaged('the data of a file overlap');
    end = from + length;
    return [from, length];
  });
  return { sizeBytes, data };
}

/** UTF-8 where it is, which nearly all names are; else the bytes themselves. */
function formatPath(path: BytePath): string | { bytes: string } {
  const raw = toBuffer(path);
  const text = raw.toString('utf8');
  return Buffer.from(text).equals(raw) ? text : { bytes: raw.toString('base64') };
}

/** An absolute path without detours: nothing in it can lead out of the directory that it begins with. */
function parsePath(value: unknown): BytePath {
  const path = bytes(value);
  const names = path.split('/');
  const detours = names.slice(1).some((name) => name === '' || name === '.' || name === '..');
  if (names[0] !== '' || names.length < 2 || detours)
    throw damaged(`the path ${JSON.stringify(shown(path))} has detours`);
  return path;
}

function bytes(value: unknown): BytePath {
  const raw =
    typeof value === 'string' ? toBytePath(value) : toBytePath(Buffer.from(string(record(value)['bytes']), 'base64'));
  if (raw === '' || raw.includes('\0')) throw damaged('a path is empty or has a NUL byte');
  return raw;
}

function string(value: unknown): string {
  if (typeof value !== 'string') throw damaged('a path is neither text nor bytes');
  return value;
}

function count(value: unknown, max: number): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= max) return value;
  throw damaged('a number is missing or out of range');
}

function record(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw damaged('a field is not an object');
  return value as Record<string, unknown>;
}

function damaged(reason: string): FastFreezeError {
  return new FastFreezeError({ code: 'image', op: 'read the list of preserved files', reason });
}
