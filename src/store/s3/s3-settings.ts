// SPDX-License-Identifier: Apache-2.0
import type { ServerSideEncryption, StorageClass } from '@aws-sdk/client-s3';
import { given, pairs, wrongSetting } from '../object/settings.js';

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
    throw wrongSetting('FF_S3_SSE', encryption, 'aws:kms, since there is a FF_S3_SSE_KMS_KEY_ID');
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
      ...(tags === undefined ? {} : { Tagging: new URLSearchParams(pairs('FF_S3_TAGS', tags)).toString() }),
    },
  };
}

function choice(env: NodeJS.ProcessEnv, name: string, allowed: readonly string[]): string | undefined {
  const value = given(env, name);
  if (value === undefined) return undefined;
  if (!allowed.includes(value)) throw wrongSetting(name, value, allowed.join(' or '));
  return value;
}
