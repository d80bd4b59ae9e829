// SPDX-License-Identifier: Apache-2.0
import { afterEach, describe, expect, test } from '@jest/globals';
import { FastFreezeError } from '../../../../src/base/errors.js';
import { openStore } from '../../../../src/store/store.js';
import { readS3Settings } from '../../../../src/store/s3/s3-settings.js';

describe('settings of S3', () => {
  afterEach(() => void Reflect.deleteProperty(process.env, 'FF_S3_SSE'));

  test('are few where nothing is set, and empty variables are not set', () => {
    const none = { pathStyle: false, object: {} };
    expect(readS3Settings({})).toEqual(none);
    const empty = ['AWS_ENDPOINT_URL', 'AWS_ENDPOINT_URL_S3', 'FF_S3_ADDRESSING', 'FF_S3_SSE', 'FF_S3_SSE_KMS_KEY_ID'];
    const more = ['FF_S3_STORAGE_CLASS', 'FF_S3_TAGS', 'FF_S3_REQUEST_PAYER'];
    expect(readS3Settings(Object.fromEntries([...empty, ...more].map((name) => [name, ''])))).toEqual(none);
  });

  test.each([
    [{ AWS_ENDPOINT_URL: 'http://s3' }, { pathStyle: true, fallbackRegion: 'us-east-1', object: {} }],
    [{ AWS_ENDPOINT_URL_S3: 'http://s3' }, { pathStyle: true, fallbackRegion: 'us-east-1', object: {} }],
    [
      { AWS_ENDPOINT_URL_S3: 'http://s3', FF_S3_ADDRESSING: 'virtual' },
      { pathStyle: false, fallbackRegion: 'us-east-1', object: {} },
    ],
    [{ FF_S3_ADDRESSING: 'path' }, { pathStyle: true, object: {} }],
    [{ FF_S3_REQUEST_PAYER: 'requester' }, { pathStyle: false, requestPayer: 'requester', object: {} }],
    [{ FF_S3_SSE: 'AES256' }, { pathStyle: false, object: { ServerSideEncryption: 'AES256' } }],
    [
      { FF_S3_SSE_KMS_KEY_ID: 'key' },
      { pathStyle: false, object: { ServerSideEncryption: 'aws:kms', SSEKMSKeyId: 'key' } },
    ],
    [
      { FF_S3_SSE: 'aws:kms:dsse', FF_S3_SSE_KMS_KEY_ID: 'key' },
      { pathStyle: false, object: { ServerSideEncryption: 'aws:kms:dsse', SSEKMSKeyId: 'key' } },
    ],
    [{ FF_S3_STORAGE_CLASS: 'STANDARD_IA' }, { pathStyle: false, object: { StorageClass: 'STANDARD_IA' } }],
    [
      { FF_S3_TAGS: 'team=a, job=b & c=d,empty=' },
      { pathStyle: false, object: { Tagging: 'team=a&job=b+%26+c%3Dd&empty=' } },
    ],
  ])('%j', (env, settings) => {
    expect(readS3Settings(env)).toEqual(settings);
  });

  test.each([
    [{ FF_S3_ADDRESSING: 'both' }, 'path or virtual'],
    [{ FF_S3_SSE: 'aes256' }, 'AES256 or aws:kms'],
    [{ FF_S3_SSE: 'AES256', FF_S3_SSE_KMS_KEY_ID: 'key' }, 'aws:kms'],
    [{ FF_S3_TAGS: 'team' }, 'name=value'],
    [{ FF_S3_TAGS: '=a' }, 'name=value'],
    [{ FF_S3_REQUEST_PAYER: 'me' }, 'requester'],
  ])('%j is refused', (env, hint) => {
    const read = (): unknown => readS3Settings(env);
    expect(read).toThrow(FastFreezeError);
    expect(read).toThrow(expect.objectContaining({ code: 'usage', hint: expect.stringContaining(hint) as unknown }));
  });

  test('are read before anything is started', () => {
    process.env['FF_S3_SSE'] = 'rot13';
    expect(() => openStore('s3://bucket/job')).toThrow('FF_S3_SSE=rot13');
    expect(() => openStore('file:/job')).not.toThrow();
  });
});
