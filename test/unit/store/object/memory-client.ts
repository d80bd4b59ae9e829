// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, type ErrorCode } from '../../../../src/base/errors.js';
import type {
  CallOptions,
  KeyPage,
  ListedObject,
  ObjectClient,
  ObjectVersion,
  PutOptions,
  RangeBody,
  UnfinishedUpload,
  Upload,
  UploadedPart,
} from '../../../../src/store/object/object-client.js';
import type { Pieces } from '../../../../src/store/pieces.js';
import { MAX_SMALL_BYTES } from '../../../../src/store/object/object-client.js';

/** What a call does before it does its work: nothing, or throw, or wait. `after` fails when the work is done. */
export type Fault = (call: MemoryCall) => Promise<void> | void;

export interface MemoryCall {
  /** From 1. */
  readonly number: number;
  readonly method: string;
  readonly name: string;
  readonly signal: AbortSignal;
}

export interface MemoryOptions {
  readonly before?: Fault;
  readonly after?: Fault;
  readonly maxParallelParts?: number;
  /** Before bytes at a position of an object that is open are given. */
  readonly beforeRead?: (offset: number) => Promise<void> | void;
  /** How the service treats "only if absent". */
  readonly conditions?: 'kept' | 'refused' | 'ignored';
}

/** A cloud in memory, as strict as the real ones: parts must be complete, in range and of an upload that is open. */
export class MemoryClient implements ObjectClient {
  readonly url = 'mem://bucket/job';
  readonly maxParallelParts: number;
  readonly objects = new Map<string, Buffer>();
  readonly uploads = new Map<string, { name: string; parts: Map<number, Buffer> }>();
  readonly calls: string[] = [];
  /** Answers that nobody has closed. */
  openBodies = 0;
  /** The largest number of parts of one upload that were under way at once. */
  mostParallel = 0;
  modifiedAtMs = Date.now();
  keysPerPage = 1000;
  readonly #parallel = new Map<string, number>();
  #uploadNumber = 0;
  readonly #versions = new Map<string, string>();
  #version = 0;

  constructor(readonly options: MemoryOptions = {}) {
    this.maxParallelParts = options.maxParallelParts ?? 4;
  }

  put(name: string, bytes: Uint8Array, options: PutOptions): Promise<string> {
    return this.#call('put', name, options, () => {
      const { conditions = 'kept' } = this.options;
      if (options.ifAbsent && conditions === 'refused') throw clientError('unsupported', 'no conditions');
      if (options.ifAbsent && conditions === 'kept' && this.objects.has(name)) throw clientError('conflict', 'exists');
      if (options.ifVersion !== undefined && conditions === 'refused')
        throw clientError('unsupported', 'no conditions');
      if (options.ifVersion !== undefined && conditions === 'kept' && options.ifVersion !== this.#versions.get(name)) {
        throw clientError('conflict', 'changed');
      }
      this.objects.set(name, Buffer.from(bytes));
      const version = `v${++this.#version}`;
      this.#versions.set(name, version);
      return version;
    });
  }

  getVersion(name: string, options: CallOptions): Promise<ObjectVersion | undefined> {
    return this.#call('getVersion', name, options, () => {
      const bytes = this.objects.get(name);
      if ((bytes?.length ?? 0) > MAX_SMALL_BYTES) throw clientError('image', 'too large');
      return bytes === undefined ? undefined : { bytes, version: this.#versions.get(name) ?? '' };
    });
  }

  open(name: string, offset: number, length: number, options: CallOptions): Promise<RangeBody> {
    return this.#call('open', name, options, () => {
      const object = this.objects.get(name);
      if (object === undefined) throw clientError('not-found', 'none');
      const { beforeRead } = this.options;
      let left = object.subarray(offset, offset + length);
      let at = offset;
      let isOpen = true;
      this.openBodies++;
      return {
        async read(into) {
          await beforeRead?.(at);
          at += into.length;
          if (left.length < into.length) throw clientError('store', 'ended early', true);
          into.set(left.subarray(0, into.length));
          left = left.subarray(into.length);
        },
        close: () => {
          if (isOpen) this.openBodies--;
          isOpen = false;
        },
      };
    });
  }

  get(name: string, offset: number, into: Uint8Array, options: CallOptions): Promise<number> {
    return this.#call('get', name, options, () => {
      const bytes = this.objects.get(name);
      if (bytes === undefined) throw clientError('not-found', `no such object: ${name}`);
      const found = bytes.subarray(offset, offset + into.length);
      into.set(found);
      return found.length;
    });
  }

  head(name: string, options: CallOptions): Promise<ListedObject | undefined> {
    return this.#call('head', name, options, () => {
      const bytes = this.objects.get(name);
      return bytes === undefined ? undefined : { name, sizeBytes: bytes.length, modifiedAtMs: this.modifiedAtMs };
    });
  }

  list(prefix: string, options: CallOptions): Promise<ListedObject[]> {
    return this.#call('list', prefix, options, () =>
      [...this.objects]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, bytes]) => ({ name, sizeBytes: bytes.length, modifiedAtMs: this.modifiedAtMs }))
        .reverse(),
    );
  }

  listKeys(page: string | undefined, options: CallOptions): Promise<KeyPage> {
    return this.#call('listKeys', page ?? '', options, () => {
      const all = [...this.objects.keys()];
      const [from, to] = [Number(page ?? 0), Number(page ?? 0) + this.keysPerPage];
      return { keys: all.slice(from, to), next: to < all.length ? String(to) : undefined };
    });
  }

  remove(name: string, options: CallOptions): Promise<void> {
    return this.#call('remove', name, options, () => {
      this.objects.delete(name);
      this.#versions.delete(name);
    });
  }

  beginUpload(name: string, options: CallOptions): Promise<Upload> {
    return this.#call('beginUpload', name, options, () => {
      const id = String(++this.#uploadNumber);
      this.uploads.set(id, { name, parts: new Map() });
      return { name, id };
    });
  }

  async putPart(
    upload: Upload,
    part: { readonly number: number; readonly offset: number; readonly isLast: boolean },
    bytes: Pieces,
    options: CallOptions,
  ): Promise<UploadedPart> {
    const parallel = (this.#parallel.get(upload.id) ?? 0) + 1;
    this.#parallel.set(upload.id, parallel);
    this.mostParallel = Math.max(this.mostParallel, parallel);
    try {
      return await this.#call('putPart', upload.name, options, () => {
        const open = this.uploads.get(upload.id);
        if (open === undefined) throw clientError('store', 'no such upload');
        const whole = Buffer.concat(bytes);
        open.parts.set(part.number, whole);
        return { number: part.number, sizeBytes: whole.length, receipt: `${upload.id}/${part.number}` };
      });
    } finally {
      this.#parallel.set(upload.id, (this.#parallel.get(upload.id) ?? 1) - 1);
    }
  }

  completeUpload(upload: Upload, parts: readonly UploadedPart[], options: CallOptions): Promise<void> {
    return this.#call('completeUpload', upload.name, options, () => {
      const open = this.uploads.get(upload.id);
      if (open === undefined) throw clientError('store', 'no such upload');
      const bytes = parts.map((part, i) => {
        const sent = open.parts.get(part.number);
        if (part.number !== i + 1 || part.receipt !== `${upload.id}/${part.number}` || sent === undefined) {
          throw clientError('store', 'parts out of order');
        }
        return sent;
      });
      this.objects.set(upload.name, Buffer.concat(bytes));
      this.uploads.delete(upload.id);
    });
  }

  abortUpload(upload: Upload, options: CallOptions): Promise<void> {
    return this.#call('abortUpload', upload.name, options, () => void this.uploads.delete(upload.id));
  }

  listUploads(options: CallOptions): Promise<UnfinishedUpload[]> {
    return this.#call('listUploads', '', options, () =>
      [...this.uploads].map(([id, { name }]) => ({ id, name, startedAtMs: this.modifiedAtMs })),
    );
  }

  async #call<T>(method: string, name: string, { signal }: CallOptions, work: () => T): Promise<T> {
    const number = this.calls.push(method);
    await this.options.before?.({ number, method, name, signal });
    if (signal.aborted) throw clientError('aborted', 'asked to stop');
    const result = work();
    await this.options.after?.({ number, method, name, signal });
    return result;
  }
}

export function clientError(code: ErrorCode, reason: string, passing = false): FastFreezeError {
  return new FastFreezeError({ code, op: 'use', subject: 'mem:', reason, passing });
}

/** Waits for the end of a call that never ends by itself. */
export function untilAborted({ signal }: { readonly signal: AbortSignal }): Promise<never> {
  return new Promise((_, reject) => {
    const stop = (): void => reject(clientError('aborted', 'asked to stop'));
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}
