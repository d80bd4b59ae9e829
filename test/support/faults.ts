// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../src/base/errors.js';
import type { ObjectClient } from '../../src/store/object/object-client.js';
import type { Store, StoreReader, StoreWriter } from '../../src/store/store.js';

export interface FaultOptions {
  /** The call that fails, from 1. */
  readonly nth: number;
  /** Count and fail only calls of this method. How often each is called is a matter of timing: chunks that wait together go by one `append`. */
  readonly method?: string;
  /** Before anything is done, or when all is done and only the answer is lost. */
  readonly when: 'before' | 'after';
  /** What a layer of retries tries again. */
  readonly passing?: boolean;
}

/** One call of many fails, once. Counts the calls of whatever it is wrapped around. */
export class Fault {
  calls = 0;
  /** Every method that was called, failed or not. */
  readonly seen = new Set<string>();
  /** The call that it hit; undefined when there were fewer. */
  struck: string | undefined;

  constructor(private readonly options: FaultOptions) {}

  async guard<T>(call: string, action: () => Promise<T>): Promise<T> {
    const { nth, when, method = call, passing = false } = this.options;
    this.seen.add(call);
    if (call !== method || ++this.calls !== nth) return await action();
    this.struck = call;
    if (when === 'after') await action();
    throw new FastFreezeError({ code: 'store', op: call, subject: 'fault', reason: `injected ${when}`, passing });
  }
}

/**
 * Every method of the store, its writers and readers can fail. Only `abort` and `close`, which cannot by their contract,
 * are passed on.
 */
export function withStoreFault(store: Store, fault: Fault): Store {
  return {
    url: store.url,
    writesArriveLate: store.writesArriveLate,
    joinsAtFinish: store.joinsAtFinish,
    partBytes: store.partBytes,
    writeOnce: store.writeOnce,
    prepare: () => fault.guard('prepare', () => store.prepare()),
    createWriter: (name) =>
      fault.guard('createWriter', async () => withWriterFault(await store.createWriter(name), fault)),
    createIfAbsent: (name, bytes, options) =>
      fault.guard('createIfAbsent', () => store.createIfAbsent(name, bytes, options)),
    put: (name, bytes) => fault.guard('put', () => store.put(name, bytes)),
    readVersion: (name) => fault.guard('readVersion', () => store.readVersion(name)),
    replace: (name, bytes, version) => fault.guard('replace', () => store.replace(name, bytes, version)),
    read: (name, offset, into) => fault.guard('read', () => store.read(name, offset, into)),
    openReader: (name) => fault.guard('openReader', async () => withReaderFault(await store.openReader(name), fault)),
    size: (name) => fault.guard('size', () => store.size(name)),
    list: (prefix) => fault.guard('list', () => store.list(prefix)),
    remove: (name) => fault.guard('remove', () => store.remove(name)),
    sweepUnfinished: (isMeant, idleMs) => fault.guard('sweepUnfinished', () => store.sweepUnfinished(isMeant, idleMs)),
  };
}

function withWriterFault(writer: StoreWriter, fault: Fault): StoreWriter {
  return {
    append: (parts) => fault.guard('append', () => writer.append(parts)),
    finish: () => fault.guard('finish', () => writer.finish()),
    abort: () => writer.abort(),
  };
}

function withReaderFault(reader: StoreReader, fault: Fault): StoreReader {
  return {
    sizeBytes: reader.sizeBytes,
    read: (offset, into) => fault.guard('reader.read', () => reader.read(offset, into)),
    close: () => reader.close(),
  };
}

/** Below the retries: single requests to a cloud. */
export function withClientFault(client: ObjectClient, fault: Fault): ObjectClient {
  return {
    url: client.url,
    maxParallelParts: client.maxParallelParts,
    put: (name, bytes, o) => fault.guard('put', () => client.put(name, bytes, o)),
    get: (name, offset, into, o) => fault.guard('get', () => client.get(name, offset, into, o)),
    open: (name, offset, length, o) => fault.guard('open', () => client.open(name, offset, length, o)),
    head: (name, o) => fault.guard('head', () => client.head(name, o)),
    list: (prefix, o) => fault.guard('list', () => client.list(prefix, o)),
    remove: (name, o) => fault.guard('remove', () => client.remove(name, o)),
    beginUpload: (name, o) => fault.guard('beginUpload', () => client.beginUpload(name, o)),
    putPart: (upload, part, bytes, o) => fault.guard('putPart', () => client.putPart(upload, part, bytes, o)),
    completeUpload: (upload, parts, o) => fault.guard('completeUpload', () => client.completeUpload(upload, parts, o)),
    abortUpload: (upload, o) => fault.guard('abortUpload', () => client.abortUpload(upload, o)),
    getVersion: (name, o) => fault.guard('getVersion', () => client.getVersion(name, o)),
    listKeys: (page, o) => fault.guard('listKeys', () => client.listKeys(page, o)),
    listUploads: (o) => fault.guard('listUploads', () => client.listUploads(o)),
  };
}
