// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseFileUrl } from '../../../src/store/file-url.js';
import { jobUrl, lastName } from '../../../src/store/job-url.js';
import { parseBucketUrl } from '../../../src/store/object/bucket-url.js';

describe('the URL of a job by its ID', () => {
  test.each([
    ['s3://bucket', 'job 1', 's3://bucket/job 1'],
    ['s3://bucket/base//', '100%25', 's3://bucket/base/100%25'],
    ['gs://bucket/base', 'ä?b#c', 'gs://bucket/base/ä?b#c'],
    ['file:/srv', '100% ä', 'file:/srv/100%25 ä'],
    ['file:///srv/', 'a%41', 'file:///srv/a%2541'],
    ['file:/', 'x', 'file:/x'],
    ['/srv', '100% %41', '/srv/100% %41'],
    ['/', 'x', '/x'],
  ])('below %j, %j is %j', (base, id, url) => {
    expect(jobUrl(base, id)).toBe(url);
    expect(lastName(url)).toBe(id);
  });

  test.each(['', '.', '..', 'a/b', '/', 'a\nb', '\0', '\x7f'])('%j is refused', (id) => {
    for (const base of ['s3://bucket/base', 'file:/srv', '/srv']) {
      expect(() => jobUrl(base, id)).toThrow('a job ID is one name');
    }
  });

  test('names the folder of that very name, whatever the characters and the kind of store', () => {
    const ids = fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 30 })
      .filter((id) => !/[/\u0000-\u001f\u007f]/u.test(id) && id !== '.' && id !== '..');
    fc.assert(
      fc.property(ids, (id) => {
        expect(parseBucketUrl(jobUrl('s3://bucket/base', id)).prefix).toBe(`base/${id}/`);
        expect(parseFileUrl(jobUrl('file:/base', id))).toBe(`/base/${id}`);
        expect(parseFileUrl(jobUrl('/base', id))).toBe(`/base/${id}`);
        for (const base of ['s3://bucket/base', 'file:/base', '/base']) expect(lastName(jobUrl(base, id))).toBe(id);
      }),
    );
  });
});
