// SPDX-License-Identifier: Apache-2.0
import type { ServerSideEncryption, StorageClass } from '@aws-sdk/client-s3';
import { FastFreezeError } from '../../base/errors.js';

/** What the SDK's own chain does not know, out of `FF_S3_*`. */
export interface S3Settings {
  readonly pathStyle: boolean;
  /** Where the SDK's chain names none: services of one's own seldom have regions, but a signature has one. */
  readonly fallbackRegion?: string;
  readonly requestPayer?: 'requester';
  /** Fields of every request that makes an object. */
  readonly object: {
    readonly ServerSideEncryption?: ServerSideEncryption;
    readonly SSEKMSKeyId?: string;
    readonly StorageClass?: StorageClass;
    readonly Tagging?: string;
  };
}

/** Throws `usage` for a value that no service takes. */
export function readS3Settings(env: NodeJS.ProcessEnv): S3Settings {
  const endpoint = given(env, 'AWS_ENDPOINT_URL_S3') ?? given(env, 'AWS_ENDPOINT_URL');
  const style = choice(env, 'FF_S3_ADDRESSING', ['path', 'virtual']);
  const encryption = choice(env, 'FF_S3_SSE', ['AES256', 'aws:kms', 'aws:kms:dsse']);
  const keyId = given(env, 'FF_S3_SSE_KMS_KEY_ID');
  const storageClass = given(env, 'FF_S3_STORAGE_CLASS');
  const tags = given(env, 'FF_S3_TAGS');
  const payer = choice(env, 'FF_S3_REQUEST_PAYER', ['requester']);
  if (keyId !== undefined && encryption === 'AES256')
    throw refuse('FF_S3_SSE', encryption, 'aws:kms, since there is a FF_S3_SSE_KMS_KEY_ID');
  return {
    // Services of one's own seldom have a host name for each bucket.
    pathStyle: style === undefined ? endpoint !== undefined : style === 'path',
    ...(endpoint === undefined ? {} : { fallbackRegion: 'us-east-1' }),
    ...(payer === undefined ? {} : { requestPayer: 'requester' }),
    object: {
      ...(encryption === undefined && keyId === undefined
        ? {}
        : { ServerSideEncryption: (encryption ?? 'aws:kms') as ServerSideEncryption }),
      ...(keyId === undefined ? {} : { SSEKMSKeyId: keyId }),
      ...(storageClass === undefined ? {} : { StorageClass: storageClass as StorageClass }),
      ...(tags === undefined ? {} : { Tagging: encodeTags(tags) }),
    },
  };
}

/** `team=a,job=b c` as the header has it. */
function encodeTags(text: string): string {
  const pairs = text.split(',').map((pair) => /^([^=]+)=(.*)$/u.exec(pair.trim()));
  if (pairs.some((pair) => pair === null)) throw refuse('FF_S3_TAGS', text, 'name=value,name=value');
  return new URLSearchParams(pairs.map((pair): [string, string] => [pair?.[1] ?? '', pair?.[2] ?? ''])).toString();
}

/** An empty variable is none. */
function given(env: NodeJS.ProcessEnv, name: string): string | undefined {
  const value = env[name];
  return value === '' ? undefined : value;
}

function choice(env: NodeJS.ProcessEnv, name: string, allowed: readonly string[]): string | undefined {
  const value = given(env, name);
  if (value === undefined) return undefined;
  if (!allowed.includes(value)) throw refuse(name, value, allowed.join(' or '));
  return value;
}

function refuse(name: string, value: string, wanted: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: `${name}=${value}`,
    reason: 'it is not a value that it can have',
    hint: `give ${wanted}`,
  });
}
