// SPDX-License-Identifier: Apache-2.0
import type { Bucket, FileMetadata } from '@google-cloud/storage';
import { createHash } from 'node:crypto';
import { fillFromStream, rangeBody, readSmall } from '../object/body.js';
import { formatBucketUrl, type BucketPath } from '../object/bucket-url.js';
import type { CallOptions, ListedObject, ObjectClient, PutOptions } from '../object/object-client.js';
import { gsError, isMissingObject, statusOf } from './gs-error.js';
import type { GsSettings } from './gs-settings.js';
import { type Transport, createTransport } from './gs-transport.js';
import { createPartSender } from './gs-upload.js';
import { Storage } from './sdk.js';

/** A connection on which nothing comes for so long is given up. */
const IDLE_TIMEOUT_MS = 30_000;
/** A part on a line of half a megabit. */
const CALL_TIMEOUT_MS = 150_000;
/** Of a line of half a megabit. */
const SLOWEST_BYTES_PER_MS = 64;
const CONTENT_TYPE = 'application/octet-stream';

/** Google Cloud Storage by its JSON API. Credentials and endpoint come from the SDK's own chain. */
export function createGsClient(place: BucketPath, settings: GsSettings): ObjectClient {
  const { storage, transport } = sharedStorage();
  const { send } = transport;
  const sender = createPartSender(send);
  const bucket = storage.bucket(place.bucket);
  const url = formatBucketUrl('gs', place);
  const payer = settings.userProject === undefined ? {} : { userProject: settings.userProject };
  const key = settings.kmsKeyName === undefined ? {} : { kmsKeyName: settings.kmsKeyName };
  const fileOf = (name: string) => bucket.file(place.prefix + name, { ...payer });
  const mediaQuery = new URLSearchParams({ alt: 'media', ...payer }).toString();
  const mediaUrl = (name: string): string =>
    `${storage.baseUrl}/b/${place.bucket}/o/${encodeURIComponent(place.prefix + name)}?${mediaQuery}`;
  const newFile = (name: string) => bucket.file(place.prefix + name, { ...payer, ...key });

  const attempt = async <T>(
    op: string,
    name: string | undefined,
    { signal }: CallOptions,
    action: (signal: AbortSignal) => Promise<T>,
    timeoutMs = CALL_TIMEOUT_MS,
  ): Promise<T> => {
    const timeout = AbortSignal.timeout(timeoutMs);
    const either = AbortSignal.any([signal, timeout]);
    try {
      return await orEnd(action(either), either);
    } catch (error) {
      const failure = gsError(error, {
        op,
        subject: name === undefined ? url : `${url}/${name}`,
        bucket: place.bucket,
        aborted: signal.aborted,
        timedOut: timeout.aborted,
      });
      // Not the service said so, but the connection.
      if (failure.passing && statusOf(error) === undefined) transport.closeIdle();
      throw failure;
    }
  };

  /**
   * Where the SDK itself speaks to the service nobody sees whether anything moves. So that a connection that stands still is
   * noticed while there is time to try again, such a call has the time that its bytes need.
   */
  const attemptBySdk = <T>(
    op: string,
    name: string | undefined,
    options: CallOptions,
    action: () => Promise<T>,
    sentBytes = 0,
  ): Promise<T> => attempt(op, name, options, action, IDLE_TIMEOUT_MS + Math.ceil(sentBytes / SLOWEST_BYTES_PER_MS));

  return {
    url,
    // A session takes its bytes in order.
    maxParallelParts: 1,

    put: (name, bytes, options) =>
      attemptBySdk(
        'write',
        name,
        options,
        async () => {
          const file = newFile(name);
          await file.save(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), {
            resumable: false,
            // The service compares it before the object appears; the SDK would do so after, in JavaScript.
            validation: false,
            metadata: { ...settings.object, contentType: CONTENT_TYPE, md5Hash: md5Of(bytes) },
            ...conditionOf(options),
          });
          return String(file.metadata.generation ?? '');
        },
        bytes.length,
      ),

    getVersion: (name, options) =>
      attempt('read', name, options, async (signal) => {
        try {
          const { data, headers } = await send({
            method: 'GET',
            url: mediaUrl(name),
            headers: {},
            asStream: true,
            signal,
          });
          const length = headers['content-length'] as string | undefined;
          const announcedBytes = length === undefined ? undefined : Number(length);
          const bytes = await readSmall(`${url}/${name}`, data, announcedBytes, IDLE_TIMEOUT_MS);
          return { bytes, version: String(headers['x-goog-generation'] ?? '') };
        } catch (error) {
          if (isMissingObject(error)) return undefined;
          throw error;
        }
      }),

    get: (name, offset, into, options) =>
      attempt('read', name, options, async (signal) => {
        try {
          const answer = await send({
            method: 'GET',
            url: mediaUrl(name),
            headers: { Range: `bytes=${offset}-${offset + into.length - 1}` },
            asStream: true,
            signal,
          });
          const length = answer.headers['content-length'] as string | undefined;
          return await fillFromStream(
            answer.data,
            length === undefined ? undefined : Number(length),
            into,
            IDLE_TIMEOUT_MS,
          );
        } catch (error) {
          if (statusOf(error) === 416) return 0;
          throw error;
        }
      }),

    open: (name, offset, length, options) =>
      attempt('read', name, options, async (signal) => {
        const headers = { Range: `bytes=${offset}-${offset + length - 1}` };
        const answer = await send({ method: 'GET', url: mediaUrl(name), headers, asStream: true, signal });
        return rangeBody(answer.data, IDLE_TIMEOUT_MS);
      }),

    head: (name, options) =>
      attemptBySdk('look at', name, options, async () => {
        try {
          const [found] = await fileOf(name).getMetadata();
          return listed(name, found);
        } catch (error) {
          if (isMissingObject(error)) return undefined;
          throw error;
        }
      }),

    list: (prefix, options) => attemptBySdk('list', undefined, options, () => listAll(bucket, place, prefix, payer)),

    listKeys: (page, options) =>
      attemptBySdk('list', undefined, options, async () => {
        const more = page === undefined ? {} : { pageToken: page };
        // Names are all that is wanted of a million objects.
        const fields = 'items(name),nextPageToken';
        const query = { prefix: place.prefix, autoPaginate: false, fields, ...payer, ...more };
        const [files, , answer] = await bucket.getFiles(query);
        const keys = files.map((file) => file.name.slice(place.prefix.length));
        return { keys, next: (answer as { readonly nextPageToken?: string } | undefined)?.nextPageToken };
      }),

    remove: (name, options) =>
      attemptBySdk('remove', name, options, async () => {
        try {
          await fileOf(name).delete();
        } catch (error) {
          if (!isMissingObject(error)) throw error;
        }
      }),

    beginUpload: (name, options) =>
      attemptBySdk('begin to upload', name, options, async () => {
        const metadata = { ...settings.object, contentType: CONTENT_TYPE };
        const [id] = await newFile(name).createResumableUpload({ metadata });
        return { name, id };
      }),

    putPart: (upload, part, bytes, options) =>
      attempt('upload a part of', upload.name, options, (signal) => sender.put(upload, part, bytes, signal)),

    completeUpload: (upload, parts, options) =>
      attempt('finish the upload of', upload.name, options, async () => {
        try {
          sender.verify(upload, parts);
        } catch (error) {
          // What is there under this name is not what it should be.
          await fileOf(upload.name)
            .delete()
            .catch(() => undefined);
          throw error;
        }
      }),

    abortUpload: (upload, options) =>
      attempt('call off the upload of', upload.name, options, async (signal) => {
        // 499 is how the service says that it has done so; the others, that there is no such upload (any more).
        const alsoGood = [499, 404, 410];
        await send({ method: 'DELETE', url: upload.id, headers: {}, alsoGood, signal });
      }),

    // The service has no list of them. It drops them itself, a week after they began, and they cost nothing.
    listUploads: () => Promise.resolve([]),
  };
}

function conditionOf({ ifAbsent, ifVersion }: PutOptions): {
  preconditionOpts?: { ifGenerationMatch: number | string };
} {
  if (ifVersion !== undefined) return { preconditionOpts: { ifGenerationMatch: ifVersion } };
  return ifAbsent ? { preconditionOpts: { ifGenerationMatch: 0 } } : {};
}

async function listAll(
  bucket: Bucket,
  place: BucketPath,
  prefix: string,
  payer: { readonly userProject?: string },
): Promise<ListedObject[]> {
  const found: ListedObject[] = [];
  let pageToken: string | undefined;
  do {
    const more = pageToken === undefined ? {} : { pageToken };
    // What lies in a folder below belongs to another job.
    const query = { prefix: place.prefix + prefix, delimiter: '/', autoPaginate: false, ...payer, ...more };
    const [files, , page] = await bucket.getFiles(query);
    for (const file of files) {
      const name = file.name.slice(place.prefix.length);
      if (name !== '' && !name.includes('/')) found.push(listed(name, file.metadata));
    }
    pageToken = (page as { readonly nextPageToken?: string } | undefined)?.nextPageToken;
  } while (pageToken !== undefined);
  return found;
}

/** One for all stores of the process: it has the connections, and the token that is not asked for each time. */
function sharedStorage(): { readonly storage: Storage; readonly transport: Transport } {
  const variables = Object.entries(process.env).filter(([name]) =>
    /^(?:GOOGLE_|STORAGE_|GCLOUD_|GCE_|CLOUDSDK_)/u.test(name),
  );
  const key = JSON.stringify(variables.sort());
  let shared = storages.get(key);
  if (shared === undefined) {
    const storage = makeStorage();
    shared = { storage, transport: createTransport(storage) };
    storages.set(key, shared);
  }
  return shared;
}

const storages = new Map<string, ReturnType<typeof sharedStorage>>();

function makeStorage(): Storage {
  return new Storage({
    // Tried again by a layer of ours, for all clouds alike.
    retryOptions: { autoRetry: false, maxRetries: 0 },
    timeout: CALL_TIMEOUT_MS,
  });
}

function listed(name: string, { size, updated }: FileMetadata): ListedObject {
  return { name, sizeBytes: Number(size ?? 0), modifiedAtMs: Date.parse(updated ?? '') || 0 };
}

function md5Of(bytes: Uint8Array): string {
  return createHash('md5').update(bytes).digest('base64');
}

/** The SDK takes no signal: what is called off is left to its own timeout. */
function orEnd<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const end = (): void => reject(new Error('called off'));
    if (signal.aborted) end();
    signal.addEventListener('abort', end, { once: true });
    void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', end));
  });
}
