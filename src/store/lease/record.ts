// SPDX-License-Identifier: Apache-2.0

/** The object of a job that says who runs it. */
export const LEASE_NAME = 'lease.json';

export interface LeaseRecord {
  /** Null when the last holder has released it. */
  readonly holder: null | {
    readonly id: string;
    readonly host: string;
    readonly pid: number;
    readonly bootId: string;
    readonly lock?: { readonly path: string; readonly device: string; readonly inode: string };
  };
  readonly ttlMs: number;
  readonly counter: number;
}

/** Undefined for bytes that are no lease of this program's. */
export function parseLeaseRecord(bytes: Uint8Array): LeaseRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    return undefined;
  }
  if (!isObject(value) || value['format'] !== 1 || value['tool'] !== 'fastfreeze') return undefined;
  const { holder, ttl_seconds: ttlSeconds, counter } = value;
  if (typeof ttlSeconds !== 'number' || typeof counter !== 'number') return undefined;
  if (holder === null) return { holder, ttlMs: ttlSeconds * 1000, counter };
  if (!isObject(holder)) return undefined;
  const { id, host, pid, boot_id: bootId = '' } = holder;
  if (typeof id !== 'string' || typeof host !== 'string' || typeof pid !== 'number') return undefined;
  return { holder: { id, host, pid, bootId: String(bootId) }, ttlMs: ttlSeconds * 1000, counter };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
