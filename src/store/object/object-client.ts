// SPDX-License-Identifier: Apache-2.0
import type { Pieces } from '../pieces.js';

/** What a list says of an object. */
export interface ListedObject {
  readonly name: string;
  readonly sizeBytes: number;
  readonly modifiedAtMs: number;
}

/** Bytes of an upload that has begun; nobody sees them before `completeUpload`. */
export interface Upload {
  readonly name: string;
  /** The service's own name for it. */
  readonly id: string;
}

export interface UnfinishedUpload extends Upload {
  readonly startedAtMs: number;
}

/** What `completeUpload` must be told of every part, in order. */
export interface UploadedPart {
  readonly number: number;
  readonly sizeBytes: number;
  /** The service's receipt for it; empty where there is none. */
  readonly receipt: string;
  /** As it was sent, where the service wants to be told again. */
  readonly checksum?: string;
}

/** Some of the keys below a place. */
export interface KeyPage {
  /** After the place's own prefix; those in folders below too, in the order of the service. */
  readonly keys: readonly string[];
  /** What asks for the next page; undefined at the end. */
  readonly next: string | undefined;
}

export interface CallOptions {
  /** Ends the call, with an `aborted` error. */
  readonly signal: AbortSignal;
}

export interface PutOptions extends CallOptions {
  /** Only where there is no object of this name. */
  readonly ifAbsent: boolean;
  /** Only where the object is still this version. */
  readonly ifVersion?: string;
}

export interface ObjectVersion {
  readonly bytes: Uint8Array;
  readonly version: string;
}

/** An answer that is still arriving; what is not read yet waits in the connection, not in memory of ours. */
export interface RangeBody {
  /** Fill `into` with the bytes that come next; an end or a stall before that is an error. One call at a time. */
  read(into: Uint8Array): Promise<void>;
  /** Ends the request, if it has not ended. Idempotent. */
  close(): void;
}

/** What `getVersion` reads at most. */
export const MAX_SMALL_BYTES = 64 * 1024;

/**
 * One cloud's object storage below one prefix: single requests, each tried once. What is common to all clouds (parts,
 * retries, read-ahead, budgets) stands above this interface and is written once; a client only speaks its SDK and turns
 * its errors into ours.
 *
 * Errors: `not-found` for a missing object; `conflict` for a condition that does not hold; `passing: true` when the same
 * request may succeed later; the rest `store`, with a remedy.
 */
export interface ObjectClient {
  /** How a user would name this place. */
  readonly url: string;
  /** Parts of one upload that may be under way at once: 1 where a service takes them only in order. */
  readonly maxParallelParts: number;

  /**
   * Write a small object in one request; resolves to the mark of this version of it, empty where the service gives none.
   * With a condition the service itself must refuse with `conflict` where it does not hold.
   */
  put(name: string, bytes: Uint8Array, options: PutOptions): Promise<string>;
  /** A small object with the mark of its version, read by one request; undefined when there is none. */
  getVersion(name: string, options: CallOptions): Promise<ObjectVersion | undefined>;
  /** Fill `into` from `offset`; resolves to the bytes there were, fewer only at the object's end. An early end: passing. */
  get(name: string, offset: number, into: Uint8Array, options: CallOptions): Promise<number>;
  /**
   * Begin to fetch `length` bytes from `offset` by one request, to be read piece by piece. Nothing is promised: whoever
   * meets an error, of whatever kind, asks again with `get`.
   */
  open(name: string, offset: number, length: number, options: CallOptions): Promise<RangeBody>;
  /** Undefined when there is none. */
  head(name: string, options: CallOptions): Promise<ListedObject | undefined>;
  /** All whose name starts with `prefix`, in any order; pages are fetched inside. */
  list(prefix: string, options: CallOptions): Promise<ListedObject[]>;
  /** One page of all keys below the place, at most 1000, folders below included: a bucket may have millions. */
  listKeys(page: string | undefined, options: CallOptions): Promise<KeyPage>;
  /** Removing what is not there is no error. */
  remove(name: string, options: CallOptions): Promise<void>;

  beginUpload(name: string, options: CallOptions): Promise<Upload>;
  putPart(
    upload: Upload,
    part: { readonly number: number; readonly offset: number; readonly isLast: boolean },
    bytes: Pieces,
    options: CallOptions,
  ): Promise<UploadedPart>;
  /** Asked again after an answer that was lost, it resolves. `upload` is the object that `beginUpload` gave. */
  completeUpload(upload: Upload, parts: readonly UploadedPart[], options: CallOptions): Promise<void>;
  abortUpload(upload: Upload, options: CallOptions): Promise<void>;
  listUploads(options: CallOptions): Promise<UnfinishedUpload[]>;
}
