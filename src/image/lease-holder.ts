// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { LEASE_NAME, parseLeaseRecord } from '../store/lease/record.js';
import type { Store } from '../store/store.js';

export interface LeaseHolder {
  readonly host: string;
  readonly pid: number;
}

export interface LeaseState {
  /** Somebody may be running the job. A lease that cannot be understood is taken for held: that costs nothing. */
  readonly held: boolean;
  /** Null where nobody has it, or it cannot be understood. One that has died is named until another takes the lease. */
  readonly holder: LeaseHolder | null;
}

const MAX_LEASE_BYTES = 64 << 10;

/** Who has the lease of a job, by what is written there; whether that one still lives only watching it would tell. */
export async function readLease(store: Store): Promise<LeaseState> {
  const bytes = await readIfThere(store);
  if (bytes === undefined) return { held: false, holder: null };
  const record = parseLeaseRecord(bytes);
  if (record === undefined) return { held: true, holder: null };
  const { holder } = record;
  return holder === null ? { held: false, holder } : { held: true, holder: { host: holder.host, pid: holder.pid } };
}

async function readIfThere(store: Store): Promise<Buffer | undefined> {
  try {
    const reader = await store.openReader(LEASE_NAME);
    try {
      const bytes = Buffer.alloc(Math.min(reader.sizeBytes, MAX_LEASE_BYTES));
      await reader.read(0, bytes);
      return bytes;
    } finally {
      reader.close();
    }
  } catch (error) {
    if (!(error instanceof FastFreezeError)) throw error;
    if (error.code === 'not-found') return undefined;
    // It is replaced all the time: shorter than a moment ago is no damage.
    if (error.code === 'image') return Buffer.alloc(0);
    throw error;
  }
}
