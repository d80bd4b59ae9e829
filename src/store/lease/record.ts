// SPDX-License-Identifier: Apache-2.0

/** The object beside the manifests that says which run of the job may commit. */
export const LEASE_NAME = 'lease.json';

/** One run of a job, from its start to its end. */
export interface LeaseHolder {
  /** Random; no two runs have the same. */
  readonly id: string;
  readonly host: string;
  /** The process that `run` is, on that host. */
  readonly pid: number;
  readonly bootId: string;
  /** A file that the run keeps locked while it lives: who can lock it on the same boot of the same host knows it is dead. */
  readonly lock?: LockFile;
}

export interface LockFile {
  readonly path: string;
  readonly device: string;
  readonly inode: string;
}

/** No time of any clock is in it: a contender watches `counter` by its own. */
export interface LeaseRecord {
  /** Null after an orderly end. */
  readonly holder: LeaseHolder | null;
  /** For how long an unchanged counter still means that the holder lives. */
  readonly ttlMs: number;
  /** Grows with every writing. */
  readonly counter: number;
}

const FORMAT = 'fastfreeze-lease';
const FORMAT_VERSION = 1;

export function serializeLease(record: LeaseRecord): Buffer {
  return Buffer.from(`${JSON.stringify({ format: FORMAT, formatVersion: FORMAT_VERSION, ...record }, null, 2)}\n`);
}

/** Undefined for anything that is no lease of a version that we know. */
export function parseLeaseRecord(bytes: Uint8Array): LeaseRecord | undefined {
  const fields = parseObject(bytes);
  if (fields?.['format'] !== FORMAT || fields['formatVersion'] !== FORMAT_VERSION) return undefined;
  const holder = fields['holder'] === null ? null : readHolder(fields['holder']);
  const ttlMs = fields['ttlMs'];
  const counter = fields['counter'];
  if (holder === undefined || !isCount(ttlMs) || !isCount(counter)) return undefined;
  return { holder, ttlMs, counter };
}

function readHolder(value: unknown): LeaseHolder | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { id, host, pid, bootId, lock } = value as Record<string, unknown>;
  if (typeof id !== 'string' || typeof host !== 'string' || typeof bootId !== 'string' || !isCount(pid))
    return undefined;
  const file = readLock(lock);
  return { id, host, pid, bootId, ...(file === undefined ? {} : { lock: file }) };
}

function readLock(value: unknown): LockFile | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { path, device, inode } = value as Record<string, unknown>;
  if (typeof path !== 'string' || typeof device !== 'string' || typeof inode !== 'string') return undefined;
  return { path, device, inode };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function parseObject(bytes: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown;
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
