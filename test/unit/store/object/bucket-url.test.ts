// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FastFreezeError } from '../../../../src/base/errors.js';
import { formatBucketUrl, parseBucketUrl } from '../../../../src/store/object/bucket-url.js';
import { openStore } from '../../../../src/store/store.js';

describe('the URL of a bucket', () => {
  test.each([
    ['s3://bucket/a', 'bucket', 'a/'],
    ['s3://bucket/a/b c%41+ä&/', 'bucket', 'a/b c%41+ä&/'],
    ['s3://my.bucket-1/a//b', 'my.bucket-1', 'a/b/'],
    ['S3://bucket/A', 'bucket', 'A/'],
    ['gs://some_bucket/a?b#c', 'some_bucket', 'a?b#c/'],
  ])('%j is %s and %j', (url, bucket, prefix) => {
    expect(parseBucketUrl(url)).toEqual({ bucket, prefix });
  });

  test.each([
    ['s3:bucket/a', 'it has no bucket'],
    ['s3:///a', 'it has no bucket'],
    ['s3://Bucket/a', 'is no name of a bucket'],
    ['s3://a/b', 'is no name of a bucket'],
    ['s3://user:secret@bucket/a', 'is no name of a bucket'],
    ['s3://bucket', 'a path of its own'],
    ['s3://bucket//', 'a path of its own'],
    ['s3://bucket/a/../b', 'cannot address'],
    ['s3://bucket/./b', 'cannot address'],
    ['s3://bucket/a\nb', 'cannot address'],
    [`s3://bucket/${'ä'.repeat(400)}`, 'longer than 800 bytes'],
  ])('%j is refused: %s', (url, reason) => {
    const parse = (): unknown => parseBucketUrl(url);
    expect(parse).toThrow(FastFreezeError);
    expect(parse).toThrow(reason);
    expect(() => openStore(url)).toThrow(reason);
  });

  test('of the root of a bucket is a place of jobs, and no job', () => {
    const root = { bucket: 'bucket', prefix: '' };
    for (const url of ['s3://bucket', 's3://bucket/', 's3://bucket//']) {
      expect(parseBucketUrl(url, 'place of jobs')).toEqual(root);
    }
    expect(formatBucketUrl('s3', root)).toBe('s3://bucket');
  });

  test('of any path leads back to it, also through a store', () => {
    const segment = fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
      .filter((text) => !/[/\0-\x1f\x7f]/u.test(text) && text !== '.' && text !== '..');
    fc.assert(
      fc.property(fc.array(segment, { minLength: 1, maxLength: 5 }), (segments) => {
        const place = { bucket: 'bucket', prefix: `${segments.join('/')}/` };
        expect(parseBucketUrl(formatBucketUrl('s3', place))).toEqual(place);
        expect(openStore(openStore(formatBucketUrl('s3', place)).url).url).toBe(formatBucketUrl('s3', place));
      }),
    );
  });
});
