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

/** Who has the lease of a job, by what is written there; whether that one still lives only watching it would tell. */
export async function readLease(store: Store): Promise<LeaseState> {
  if (store.writeOnce !== undefined) return { held: false, holder: null };
  const found = await store.readVersion(LEASE_NAME).catch(tooLargeToBeOne);
  if (found === undefined) return { held: false, holder: null };
  const record = parseLeaseRecord(found.bytes);
  if (record === undefined) return { held: true, holder: null };
  const { holder } = record;
  return holder === null ? { held: false, holder } : { held: true, holder: { host: holder.host, pid: holder.pid } };
}

function tooLargeToBeOne(error: unknown): { readonly bytes: Uint8Array } {
  if (error instanceof FastFreezeError && error.code === 'image') return { bytes: Buffer.alloc(0) };
  throw error;
}
