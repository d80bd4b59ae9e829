// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { fstatSync, readFileSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { isLocked } from '../../linux/flock.js';
import type { LeaseHolder, LockFile } from './record.js';

/** This run as the holder of a lease. `lockPath` is a file that stays locked, as `lockFd`, as long as the run lives. */
export function thisRun(lockPath: string, lockFd: number): LeaseHolder {
  const { dev, ino } = fstatSync(lockFd, { bigint: true });
  return {
    id: randomBytes(16).toString('hex'),
    host: hostname(),
    pid: process.pid,
    bootId: bootId(),
    lock: { path: lockPath, device: String(dev), inode: String(ino) },
  };
}

/**
 * Whether a holder is known to have ended: it ran on this boot of this machine, and the lock that it kept is free, or is
 * ours. Anything else proves nothing: PIDs are of a namespace, and clocks differ.
 */
export function isKnownDead(holder: LeaseHolder, self: LeaseHolder): boolean {
  if (holder.lock === undefined || holder.bootId === '' || holder.bootId !== self.bootId) return false;
  if (sameFile(holder.lock, self.lock)) return true;
  try {
    const { dev, ino } = statSync(holder.lock.path, { bigint: true });
    if (String(dev) !== holder.lock.device || String(ino) !== holder.lock.inode) return false;
    return !isLocked(holder.lock.path);
  } catch {
    // Not there, or not ours to see: in another mount namespace it may well live.
    return false;
  }
}

function sameFile(one: LockFile, other: LockFile | undefined): boolean {
  return one.device === other?.device && one.inode === other.inode;
}

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}
