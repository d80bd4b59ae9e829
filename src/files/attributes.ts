// SPDX-License-Identifier: Apache-2.0
import { type BigIntStats, chmodSync, lchownSync, lstatSync } from 'node:fs';
import { hasErrno } from '../base/errors.js';
import { setModifiedTime } from '../linux/file-data.js';
import { readXattrs, removeXattr, writeXattr } from '../linux/xattr.js';
import { type Attributes, type BytePath, toBuffer } from './entry.js';

export interface AttributeRules {
  /** Let files be executed as their owner, or with capabilities, because an image says so. */
  readonly preserveSetuid: boolean;
  /** Told of each attribute that cannot be had here. */
  readonly missed: (what: string) => void;
}

/** Give a file what it had, as far as it has not: owner, mode, extended attributes, and last its time. */
export function setAttributes(
  path: BytePath,
  type: 'directory' | 'file' | 'symlink' | 'fifo',
  wanted: Attributes,
  rules: AttributeRules,
): void {
  const raw = toBuffer(path);
  const now = lstatSync(raw, { bigint: true });
  // Somebody has put a link there, and modes go through links.
  if (now.isSymbolicLink() !== (type === 'symlink')) return;
  if (Number(now.uid) !== wanted.uid || Number(now.gid) !== wanted.gid) {
    tolerate(
      () => lchownSync(raw, wanted.uid, wanted.gid),
      () => rules.missed('owners'),
    );
  }
  // A change of the owner takes setuid bits away.
  const mode = allowedMode(type, wanted.mode, rules.preserveSetuid);
  if (type !== 'symlink' && (Number(lstatSync(raw, { bigint: true }).mode) & 0o7777) !== mode) {
    tolerate(
      () => chmodSync(raw, mode),
      () => rules.missed('modes'),
    );
  }
  setXattrs(raw, wanted.xattrs, rules);
  // Last, and of what it is now: all of the above, and files that were put into it, change it.
  if (lstatSync(raw, { bigint: true }).mtimeNs !== wanted.modifiedNs) {
    tolerate(
      () => setModifiedTime(raw, wanted.modifiedNs),
      () => rules.missed('times'),
    );
  }
}

/** Whether a file surely has them already. */
export function hasAttributes(now: BigIntStats, wanted: Attributes): boolean {
  const isOwned = Number(now.uid) === wanted.uid && Number(now.gid) === wanted.gid;
  const hasMode = now.isSymbolicLink() || (Number(now.mode) & 0o7777) === wanted.mode;
  return isOwned && hasMode && now.mtimeNs === wanted.modifiedNs && wanted.xattrs.size === 0;
}

/**
 * Whether `setAttributes` gives a file another owner, mode or time. Only what this user may change counts, since whoever
 * asks copies the file for it; extended attributes do not, which some file systems never take.
 */
export function wouldChange(path: BytePath, type: string, wanted: Attributes, rules: AttributeRules): boolean {
  const now = lstatSync(toBuffer(path), { bigint: true });
  const user = process.geteuid?.() ?? 0;
  if (user !== 0 && user !== Number(now.uid)) return false;
  const isOwned = user !== 0 || (Number(now.uid) === wanted.uid && Number(now.gid) === wanted.gid);
  const hasMode = (Number(now.mode) & 0o7777) === allowedMode(type, wanted.mode, rules.preserveSetuid);
  return !isOwned || !hasMode || now.mtimeNs !== wanted.modifiedNs;
}

function setXattrs(path: Buffer, wanted: ReadonlyMap<string, Buffer>, rules: AttributeRules): void {
  const now = readXattrs(path);
  for (const name of now.keys()) {
    // What a directory hands down may let others in who could not come in before.
    if (!name.startsWith('system.posix_acl_') || wanted.has(name)) continue;
    tolerate(
      () => removeXattr(path, name),
      () => rules.missed('access control lists'),
    );
  }
  for (const [name, value] of wanted) {
    if (now.get(name)?.equals(value) === true) continue;
    if (name === CAPABILITIES && !rules.preserveSetuid) rules.missed('capabilities of files (--preserve-setuid)');
    else
      tolerate(
        () => writeXattr(path, name, value),
        () => rules.missed(`extended attributes ${name}`),
      );
  }
}

/** What a file has, as `setAttributes` gives it back. */
export function readAttributes(path: Buffer, stat: BigIntStats): Attributes {
  return { ...plainAttributes(stat), xattrs: new Map([...readXattrs(path)].filter(([name]) => isCarried(name))) };
}

/** Without extended attributes. */
export function plainAttributes({ mode, uid, gid, mtimeNs }: BigIntStats): Attributes {
  return { mode: Number(mode) & 0o7777, uid: Number(uid), gid: Number(gid), modifiedNs: mtimeNs, xattrs: new Map() };
}

/** Labels of a security module are the machine's. Access control lists are of the kind `system.`. */
function isCarried(xattr: string): boolean {
  return !xattr.startsWith('security.') || xattr === CAPABILITIES;
}

/** A file with it runs with rights that its caller has not, as with a setuid bit. */
const CAPABILITIES = 'security.capability';
const SETUID_SETGID = 0o6000;

/** On directories setgid only says which group new files are of. */
function allowedMode(type: string, mode: number, preserveSetuid: boolean): number {
  return preserveSetuid || type === 'directory' ? mode : mode & ~SETUID_SETGID;
}

/** What this user or this file system cannot have is missed; all else is an error. */
function tolerate(action: () => void, missed: () => void): void {
  try {
    action();
  } catch (error) {
    if (!hasErrno(error, 'EPERM', 'EACCES', 'EINVAL', 'EOPNOTSUPP', 'ENOTSUP')) throw error;
    missed();
  }
}
