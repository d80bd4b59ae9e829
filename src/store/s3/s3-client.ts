// SPDX-License-Identifier: Apache-2.0
import { Readable } from 'node:stream';
import { crc32 } from 'node:zlib';
import { FastFreezeError } from '../../base/errors.js';
import { type Agents, createAgents } from '../object/agents.js';
import { fillFromStream, parseContentRange, rangeBody, readSmall } from '../object/body.js';
import { formatBucketUrl, type BucketPath } from '../object/bucket-url.js';
import type { CallOptions, ListedObject, ObjectClient, PutOptions, UnfinishedUpload } from '../object/object-client.js';
import { type Pieces, sizeOf } from '../pieces.js';
import { isMisdated, nameOfError, s3Error, statusOf } from './s3-error.js';
import type { S3Settings } from './s3-settings.js';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from './sdk.js';

/** Connections at a time: parts or chunks under way, and a few small requests beside them. */
const MAX_CONNECTIONS = 16;
const CONNECT_TIMEOUT_MS = 10_000;
/** A connection on which nothing moves for so long is given up. */
const IDLE_TIMEOUT_MS = 30_000;
/** Something moves, but this slowly: a part on a line of half a megabit. */
const CALL_TIMEOUT_MS = 120_000;

/** Amazon S3, and what speaks its protocol. Credentials, region and endpoint come from the SDK's own chain. */
export function createS3Client(place: BucketPath, settings: S3Settings): ObjectClient {
  const shared = sharedClient(settings);
  const { client, agents } = shared;
  const url = formatBucketUrl('s3', place);
  const Bucket = place.bucket;
  const key = (name: string): string => place.prefix + name;
  const nameOf = (found: string | undefined): string | undefined => {
    const name = found?.startsWith(place.prefix) === true ? found.slice(place.prefix.length) : '';
    // What lies in a folder below belongs to another job.
    return name === '' || name.includes('/') ? undefined : name;
  };
  const attempt = async <T>(
    op: string,
    name: string | undefined,
    { signal }: CallOptions,
    action: (abort: { readonly abortSignal: AbortSignal }) => Promise<T>,
  ): Promise<T> => {
    // Not AbortSignal.any: a signal that lives as long as the store would remember every call.
    const call = new AbortController();
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      call.abort();
    }, CALL_TIMEOUT_MS);
    const onAbort = (): void => call.abort();
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) call.abort();
    const again = async (error: unknown): Promise<T> => {
      if (!isMisdated(error)) throw error;
      // This machine's clock is wrong; the SDK now knows by how much.
      return await action({ abortSignal: call.signal });
    };
    try {
      return await action({ abortSignal: call.signal }).catch(again);
    } catch (error) {
      const failure = s3Error(error, {
        op,
        subject: name === undefined ? url : `${url}/${name}`,
        bucket: Bucket,
        aborted: signal.aborted,
        timedOut,
      });
      // Not the service said so, but the connection.
      if (failure.passing && statusOf(error) === undefined) agents.closeIdle();
      throw failure;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    }
  };
  const payer = settings.requestPayer === undefined ? {} : { RequestPayer: settings.requestPayer };

  return {
    url,
    maxParallelParts: 4,

    put: (name, bytes, options) =>
      attempt('write', name, options, async (abort) => {
        const input = {
          Bucket,
          Key: key(name),
          Body: bytes,
          ChecksumCRC32: checksum([bytes]),
          ...conditionOf(options),
        };
        try {
          const written = await client.send(new PutObjectCommand({ ...input, ...settings.object, ...payer }), abort);
          return written.ETag ?? '';
        } catch (error) {
          // The version that was to be replaced has been removed.
          if (options.ifVersion !== undefined && isMissingObject(error)) throw replaced(`${url}/${name}`);
          throw error;
        }
      }),

    getVersion: (name, options) =>
      attempt('read', name, options, async (abort) => {
        try {
          const answer = await client.send(new GetObjectCommand({ Bucket, Key: key(name), ...payer }), abort);
          const bytes = await readSmall(`${url}/${name}`, answer.Body, answer.ContentLength, IDLE_TIMEOUT_MS);
          return { bytes, version: answer.ETag ?? '' };
        } catch (error) {
          if (isMissingObject(error)) return undefined;
          throw error;
        }
      }),

    get: (name, offset, into, options) =>
      attempt('read', name, options, async (abort) => {
        const Range = `bytes=${offset}-${offset + into.length - 1}`;
        try {
          const answer = await client.send(new GetObjectCommand({ Bucket, Key: key(name), Range, ...payer }), abort);
          const range = parseContentRange(answer.ContentRange);
          if ((range?.start ?? 0) !== offset) throw ignoresRanges(`${url}/${name}`);
          const got = await fillFromStream(answer.Body, answer.ContentLength, into, IDLE_TIMEOUT_MS);
          // A clean end proves nothing.
          if (got < into.length && range?.totalBytes !== undefined && offset + got < range.totalBytes) {
            throw endedEarly(`${url}/${name}`);
          }
          return got;
        } catch (error) {
          if (isBeyondEnd(error)) return 0;
          throw error;
        }
      }),

    open: (name, offset, length, options) =>
      attempt('read', name, options, async (abort) => {
        const Range = `bytes=${offset}-${offset + length - 1}`;
        const answer = await client.send(new GetObjectCommand({ Bucket, Key: key(name), Range, ...payer }), abort);
        const body = rangeBody(answer.Body, IDLE_TIMEOUT_MS);
        if ((parseContentRange(answer.ContentRange)?.start ?? 0) === offset) return body;
        body.close();
        throw ignoresRanges(`${url}/${name}`);
      }),

    head: (name, options) =>
      attempt('look at', name, options, async (abort) => {
        try {
          const found = await client.send(new HeadObjectCommand({ Bucket, Key: key(name), ...payer }), abort);
          return { name, sizeBytes: found.ContentLength ?? 0, modifiedAtMs: found.LastModified?.getTime() ?? 0 };
        } catch (error) {
          if (isMissingObject(error)) return undefined;
          throw error;
        }
      }),

    list: (prefix, options) =>
      attempt('list', undefined, options, async (abort) => {
        const found: ListedObject[] = [];
        let token: string | undefined;
        do {
          const input = { Bucket, Prefix: place.prefix + prefix, Delimiter: '/', ...payer };
          const more = token === undefined ? {} : { ContinuationToken: token };
          const page = await client.send(new ListObjectsV2Command({ ...input, ...more }), abort);
          for (const one of page.Contents ?? []) {
            const name = nameOf(one.Key);
            if (name === undefined) continue;
            found.push({ name, sizeBytes: one.Size ?? 0, modifiedAtMs: one.LastModified?.getTime() ?? 0 });
          }
          token = page.NextContinuationToken;
        } while (token !== undefined);
        return found;
      }),

    listKeys: (page, options) =>
      attempt('list', undefined, options, async (abort) => {
        const input = { Bucket, Prefix: place.prefix, ...payer };
        const more = page === undefined ? {} : { ContinuationToken: page };
        const found = await client.send(new ListObjectsV2Command({ ...input, ...more }), abort);
        const keys = (found.Contents ?? []).map(({ Key }) => (Key ?? '').slice(place.prefix.length));
        return { keys, next: found.NextContinuationToken };
      }),

    remove: (name, options) =>
      attempt('remove', name, options, async (abort) => {
        await client.send(new DeleteObjectCommand({ Bucket, Key: key(name), ...payer }), abort);
      }),

    beginUpload: (name, options) =>
      attempt('begin to upload', name, options, async (abort) => {
        const input = { Bucket, Key: key(name), ChecksumAlgorithm: 'CRC32' as const };
        const begun = await client.send(
          new CreateMultipartUploadCommand({ ...input, ...settings.object, ...payer }),
          abort,
        );
        if (begun.UploadId === undefined) throw new Error('the service began no upload');
        return { name, id: begun.UploadId };
      }),

    putPart: (upload, part, bytes, options) =>
      attempt('upload a part of', upload.name, options, async (abort) => {
        const place = { Bucket, Key: key(upload.name), UploadId: upload.id, PartNumber: part.number };
        const sizeBytes = sizeOf(bytes);
        // A stream of known length: the SDK would hash a buffer (SHA-256) on the main thread, which other parts wait for.
        const body = { Body: new PartBody(bytes), ContentLength: sizeBytes };
        const input = { ...place, ...body, ChecksumCRC32: checksum(bytes) };
        // Until it is known that this service looks at the one, it gets the other as well.
        const more = shared.echoesChecksums ? {} : { ContentMD5: await md5(bytes) };
        const sent = await client.send(new UploadPartCommand({ ...input, ...more, ...payer }), abort);
        if (sent.ChecksumCRC32 !== undefined) {
          shared.echoesChecksums = true;
          if (sent.ChecksumCRC32 !== input.ChecksumCRC32) throw changedOnTheWay(`${url}/${upload.name}`);
        }
        return {
          number: part.number,
          sizeBytes,
          receipt: sent.ETag ?? '',
          checksum: input.ChecksumCRC32,
        };
      }),

    completeUpload: (upload, parts, options) =>
      attempt('finish the upload of', upload.name, options, async (abort) => {
        const sizeBytes = parts.reduce((sum, part) => sum + part.sizeBytes, 0);
        const Parts = parts.map((part) => ({
          PartNumber: part.number,
          ETag: part.receipt,
          ...(part.checksum === undefined ? {} : { ChecksumCRC32: part.checksum }),
        }));
        const input = { Bucket, Key: key(upload.name), UploadId: upload.id, MultipartUpload: { Parts } };
        try {
          await client.send(new CompleteMultipartUploadCommand({ ...input, ...payer }), abort);
        } catch (error) {
          // The answer to an earlier try got lost: then the upload is over and the object there.
          if (!hasName(error, 'NoSuchUpload')) throw error;
          const head = new HeadObjectCommand({ Bucket, Key: key(upload.name), ...payer });
          const found = await client.send(head, abort).catch((gone: unknown) => {
            if (!isMissingObject(gone)) throw gone;
          });
          if (found?.ContentLength !== sizeBytes) throw error;
        }
      }),

    abortUpload: (upload, options) =>
      attempt('call off the upload of', upload.name, options, async (abort) => {
        const input = { Bucket, Key: key(upload.name), UploadId: upload.id };
        await client.send(new AbortMultipartUploadCommand({ ...input, ...payer }), abort).catch((error: unknown) => {
          if (!hasName(error, 'NoSuchUpload')) throw error;
        });
      }),

    listUploads: (options) =>
      attempt('list the uploads of', undefined, options, async (abort) => {
        const found: UnfinishedUpload[] = [];
        let marker: { KeyMarker?: string; UploadIdMarker?: string } | undefined = {};
        while (marker !== undefined) {
          const input = { Bucket, Prefix: place.prefix, ...marker, ...payer };
          const page: Awaited<ReturnType<typeof listUploadPage>> = await listUploadPage(client, input, abort);
          for (const one of page.Uploads ?? []) {
            const name = nameOf(one.Key);
            if (name === undefined || one.UploadId === undefined) continue;
            found.push({ name, id: one.UploadId, startedAtMs: one.Initiated?.getTime() ?? 0 });
          }
          marker =
            page.IsTruncated === true && page.NextKeyMarker !== undefined
              ? {
                  KeyMarker: page.NextKeyMarker,
                  ...(page.NextUploadIdMarker === undefined ? {} : { UploadIdMarker: page.NextUploadIdMarker }),
                }
              : undefined;
        }
        return found;
      }),
  };
}

function listUploadPage(
  client: S3Client,
  input: ConstructorParameters<typeof ListMultipartUploadsCommand>[0],
  abort: { readonly abortSignal: AbortSignal },
) {
  return client.send(new ListMultipartUploadsCommand(input), abort);
}

/** One for all stores of the process: it has the connections, and the credentials that are not asked for each time. */
function sharedClient(settings: S3Settings): SharedClient {
  const known = clients.get(settingsKey(settings)) ?? withoutVersionWarning(() => makeClient(settings));
  clients.set(settingsKey(settings), known);
  return known;
}

interface SharedClient {
  readonly client: S3Client;
  readonly agents: Agents;
  /** It has answered with the checksum of a part, as those do that verify it. */
  echoesChecksums: boolean;
}

const clients = new Map<string, SharedClient>();

function settingsKey(settings: S3Settings): string {
  const variables = Object.entries(process.env).filter(([name]) => name.startsWith('AWS_'));
  return JSON.stringify([settings, variables.sort()]);
}

/**
 * The SDK's advice to renew Node.js is for whoever packs this program, not for who reads the job's standard error. The
 * variable goes again: the application's environment is the one of `run`.
 */
function withoutVersionWarning<T>(make: () => T): T {
  const name = 'AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED';
  if (process.env[name] !== undefined) return make();
  process.env[name] = 'true';
  try {
    return make();
  } finally {
    Reflect.deleteProperty(process.env, name);
  }
}

function makeClient(settings: S3Settings): SharedClient {
  const agents = createAgents({ keepAlive: true, maxSockets: MAX_CONNECTIONS });
  const { fallbackRegion } = settings;
  // The chain knows best; where it knows nothing, it throws.
  const region = fallbackRegion === undefined ? {} : { region: once(() => chainRegion().catch(() => fallbackRegion)) };
  const client = new S3Client({
    // Tried again by a layer of ours, for all clouds alike.
    maxAttempts: 1,
    followRegionRedirects: true,
    // It would cost a connection for each part.
    expectContinueHeader: false,
    // Standard error is for people, and for whom it concerns we have errors.
    logger: SILENT,
    forcePathStyle: settings.pathStyle,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    // Every chunk carries a checksum of ours; checking the service's as well would take time and memory.
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      socketTimeout: IDLE_TIMEOUT_MS,
      httpAgent: agents.http,
      httpsAgent: agents.https,
      logger: SILENT,
    },
    ...region,
  });
  return { client, agents, echoesChecksums: false };
}

const SILENT = { trace: ignore, debug: ignore, info: ignore, warn: ignore, error: ignore };
function ignore(): void {
  // What matters comes as an error.
}

function chainRegion(): Promise<string> {
  return new S3Client({}).config.region();
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => (made ??= make());
}

function conditionOf({ ifAbsent, ifVersion }: PutOptions): { IfNoneMatch?: string; IfMatch?: string } {
  if (ifVersion !== undefined) return { IfMatch: ifVersion };
  return ifAbsent ? { IfNoneMatch: '*' } : {};
}

function replaced(subject: string): FastFreezeError {
  return new FastFreezeError({ code: 'conflict', op: 'replace', subject, reason: 'it has been removed' });
}

function ignoresRanges(subject: string): FastFreezeError {
  const reason = 'the service does not honour ranges, or gave another one than asked for';
  return new FastFreezeError({ code: 'store', op: 'read', subject, reason });
}

function endedEarly(subject: string): FastFreezeError {
  return new FastFreezeError({ code: 'store', op: 'read', subject, reason: 'the answer ended early', passing: true });
}

/** Base64 of the big-endian CRC-32, as the service compares it. */
function checksum(bytes: Pieces): string {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(bytes.reduce((before, piece) => crc32(piece, before), 0));
  return sum.toString('base64');
}

async function md5(bytes: Pieces): Promise<string> {
  // Loaded by the first part that needs it: whoever only reads or lists needs no native library.
  const hash = (await import('../../linux/md5.js')).createMd5();
  for (const piece of bytes) await hash.update(piece);
  return hash.digest();
}

/** A part as the SDK sends it; it sends it again, from the start, where the bucket turns out to be in another region. */
class PartBody extends Readable {
  constructor(private readonly pieces: Pieces) {
    super();
  }

  override pipe<T extends NodeJS.WritableStream>(destination: T): T {
    return Readable.from(this.pieces).pipe(destination);
  }
}

function changedOnTheWay(subject: string): FastFreezeError {
  const reason = 'the service got other bytes than were sent';
  return new FastFreezeError({ code: 'store', op: 'upload a part of', subject, reason, passing: true });
}

function hasName(error: unknown, ...names: string[]): boolean {
  return names.includes(nameOfError(error));
}

function isMissingObject(error: unknown): boolean {
  return hasName(error, 'NotFound', 'NoSuchKey');
}

function isBeyondEnd(error: unknown): boolean {
  return hasName(error, 'InvalidRange');
}
