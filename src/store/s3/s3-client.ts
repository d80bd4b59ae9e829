// SPDX-License-Identifier: Apache-2.0
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
} from '@aws-sdk/client-s3';
import { crc32 } from 'node:zlib';
import { fillFromStream } from '../object/body.js';
import type { BucketPath } from '../object/bucket-url.js';
import type { CallOptions, ListedObject, ObjectClient, UnfinishedUpload } from '../object/object-client.js';
import { s3Error } from './s3-error.js';
import { type S3Settings, readS3Settings } from './s3-settings.js';

/** Connections at a time: parts or chunks under way, and a few small requests beside them. */
const MAX_CONNECTIONS = 16;
const CONNECT_TIMEOUT_MS = 10_000;
/** A connection on which nothing moves for so long is given up. */
const IDLE_TIMEOUT_MS = 30_000;
/** A part on a line of half a megabit. */
const CALL_TIMEOUT_MS = 150_000;

/** Amazon S3, and what speaks its protocol. Credentials, region and endpoint come from the SDK's own chain. */
export function createS3Client(place: BucketPath, env: NodeJS.ProcessEnv): ObjectClient {
  const settings = readS3Settings(env);
  const client = makeClient(settings);
  const url = `s3://${place.bucket}/${place.prefix.slice(0, -1)}`;
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
    const timeout = AbortSignal.timeout(CALL_TIMEOUT_MS);
    try {
      return await action({ abortSignal: AbortSignal.any([signal, timeout]) });
    } catch (error) {
      throw s3Error(error, {
        op,
        subject: name === undefined ? url : `${url}/${name}`,
        bucket: Bucket,
        aborted: signal.aborted,
        timedOut: timeout.aborted,
      });
    }
  };
  const payer = settings.requestPayer === undefined ? {} : { RequestPayer: settings.requestPayer };

  return {
    url,
    maxParallelParts: 4,

    put: (name, bytes, options) =>
      attempt('write', name, options, async (abort) => {
        const condition = options.ifAbsent ? { IfNoneMatch: '*' } : {};
        const input = { Bucket, Key: key(name), Body: bytes, ChecksumCRC32: checksum(bytes), ...condition };
        await client.send(new PutObjectCommand({ ...input, ...settings.object, ...payer }), abort);
      }),

    get: (name, offset, into, options) =>
      attempt('read', name, options, async (abort) => {
        const Range = `bytes=${offset}-${offset + into.length - 1}`;
        try {
          const answer = await client.send(new GetObjectCommand({ Bucket, Key: key(name), Range, ...payer }), abort);
          return await fillFromStream(answer.Body, answer.ContentLength, into, IDLE_TIMEOUT_MS);
        } catch (error) {
          if (isBeyondEnd(error)) return 0;
          throw error;
        }
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
        return { name, id: begun.UploadId ?? '' };
      }),

    putPart: (upload, part, bytes, options) =>
      attempt('upload a part of', upload.name, options, async (abort) => {
        const place = { Bucket, Key: key(upload.name), UploadId: upload.id, PartNumber: part.number };
        const input = { ...place, Body: bytes, ChecksumCRC32: checksum(bytes) };
        const sent = await client.send(new UploadPartCommand({ ...input, ...payer }), abort);
        return {
          number: part.number,
          sizeBytes: bytes.length,
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
          const found = await client.send(new HeadObjectCommand({ Bucket, Key: key(upload.name), ...payer }), abort);
          if (found.ContentLength !== sizeBytes) throw error;
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

function makeClient(settings: S3Settings): S3Client {
  const agent = { keepAlive: true, maxSockets: MAX_CONNECTIONS };
  return new S3Client({
    // Tried again by a layer of ours, for all clouds alike.
    maxAttempts: 1,
    followRegionRedirects: true,
    forcePathStyle: settings.pathStyle,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    // Every chunk carries a checksum of ours; checking the service's as well would take time and memory.
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      socketTimeout: IDLE_TIMEOUT_MS,
      httpAgent: agent,
      httpsAgent: agent,
    },
    ...(settings.defaultRegion === undefined ? {} : { region: settings.defaultRegion }),
  });
}

/** Base64 of the big-endian CRC-32, as the service compares it. */
function checksum(bytes: Uint8Array): string {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(bytes));
  return sum.toString('base64');
}

function hasName(error: unknown, ...names: string[]): boolean {
  return error instanceof Error && names.includes(error.name);
}

function isMissingObject(error: unknown): boolean {
  return hasName(error, 'NotFound', 'NoSuchKey');
}

function isBeyondEnd(error: unknown): boolean {
  return hasName(error, 'InvalidRange');
}
