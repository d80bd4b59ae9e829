// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { formatCacheUrl, keyPrefix, parseCacheUrl } from '../../../../src/store/cache/cache-url.js';
import {
  nameAfter,
  namesBefore,
  objectPrefix,
  onceKey,
  parseKey,
  writtenKey,
} from '../../../../src/store/cache/keys.js';
import { jobUrl, lastName } from '../../../../src/store/job-url.js';

describe('cache: URLs', () => {
  test.each([
    ['cache:train', 'train'],
    ['cache:o/r/build.yml/job', 'o/r/build.yml/job'],
    ['cache:/team/', 'team'],
    ['cache://team', 'team'],
    ['CACHE:Job ä,:', 'Job ä,:'],
  ])('%j is the job %j', (url, name) => {
    expect(parseCacheUrl(url)).toBe(name);
    expect(parseCacheUrl(formatCacheUrl(name))).toBe(name);
  });

  test.each(['cache:', 'cache:/', 'cache:a\nb', `cache:${'x'.repeat(251)}`, `cache:${'ä'.repeat(50)}`])(
    '%j is refused',
    (url) => {
      expect(() => parseCacheUrl(url)).toThrow('cannot use the image URL');
    },
  );

  test('a base and an ID make one', () => {
    expect(parseCacheUrl(jobUrl('cache:team', 'a b'))).toBe('team/a b');
    expect(parseCacheUrl(jobUrl('cache:', 'train'))).toBe('train');
    expect(lastName('cache:train')).toBe('train');
    expect(lastName('cache:team/train')).toBe('train');
  });
});

describe('keys', () => {
  const names = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
    .filter((name) => !/[\ud800-\udfff]/u.test(name));
  const objects = fc.stringMatching(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,30}$/);

  test('are within what the service takes, and no part of one can be taken for another', () => {
    fc.assert(
      fc.property(names, names, objects, objects, (job, otherJob, name, otherName) => {
        const [prefix, otherPrefix] = [keyPrefix(job), keyPrefix(otherJob)];
        const key = writtenKey(prefix, name, 12_345, 1);
        expect(key).not.toMatch(/[,\s\u0000-\u001f]/u);
        expect(parseKey(prefix, key)).toEqual({ name, sizeBytes: 12_345 });
        expect(parseKey(prefix, onceKey(prefix, name, 2))).toEqual({ name, sizeBytes: undefined });
        const isSame = job === otherJob && name === otherName;
        expect(key.startsWith(objectPrefix(otherPrefix, otherName))).toBe(isSame);
        if (job !== otherJob) expect(prefix.startsWith(otherPrefix)).toBe(false);
      }),
    );
  });

  test.each([
    ['manifest-00000003.json', 5, ['manifest-00000002.json', 'manifest-00000001.json']],
    ['manifest-00000010.json', 2, ['manifest-00000009.json', 'manifest-00000008.json']],
    ['p-10.ffs', 2, ['p-9.ffs', 'p-8.ffs']],
    ['p-1.ffs', 2, []],
    ['index', 2, []],
  ])('before %j come %j', (name, count, before) => {
    expect(namesBefore(name, count)).toEqual(before);
    expect(before.slice(0, 1).map(nameAfter)).toEqual(before.length === 0 ? [] : [name]);
  });

  test.each([
    'manifest',
    'fastfreeze:a:x',
    'fastfreeze:a:x:',
    'fastfreeze:a:x:1',
    'fastfreeze:a:x:once',
    'fastfreeze:b:x:1:1',
  ])('%j is none of this job’s', (key) => {
    expect(parseKey(keyPrefix('a'), key)).toBeUndefined();
  });
});
