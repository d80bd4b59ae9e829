// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { findJobsInBucket } from '../../../../src/store/object/find-jobs.js';
import type { ObjectClient } from '../../../../src/store/object/object-client.js';
import { withRetries } from '../../../../src/store/object/retry.js';
import { expectCode } from '../conformance.js';
import { MemoryClient, clientError } from './memory-client.js';

const marks = (name: string): boolean => name === 'mark';
const root = { scheme: 's3', place: { bucket: 'bucket', prefix: '' } } as const;
const team = { scheme: 's3', place: { bucket: 'bucket', prefix: 'team/' } } as const;

function holding(...keys: string[]): MemoryClient {
  const client = new MemoryClient();
  for (const key of keys) client.objects.set(key, Buffer.alloc(0));
  return client;
}

describe('the jobs of a bucket', () => {
  test('are found at a place and up to four levels below, in order, whatever the pages', async () => {
    const client = holding('mark', 'b/mark', 'a/mark', 'a/x/mark', '1/2/3/4/mark', '1/2/3/4/5/mark', 'a b/ä%41/mark');
    client.objects.set('other/file', Buffer.alloc(0));
    for (const keysPerPage of [1, 3, 1000]) {
      client.keysPerPage = keysPerPage;
      const { urls, unread } = await findJobsInBucket(client, team, marks);
      const paths = ['', '/1/2/3/4', '/a', '/a b/ä%41', '/a/x', '/b'];
      expect(urls).toEqual(paths.map((path) => `s3://bucket/team${path}`));
      expect(unread).toEqual([]);
    }
  });

  test('cannot be at the root, nor where no URL leads: that is said', async () => {
    const { urls, unread } = await findJobsInBucket(holding('mark', 'a/mark', 'a//b/mark', '../mark'), root, marks);
    expect(urls).toEqual(['s3://bucket/a']);
    expect(unread.map(({ url }) => url)).toEqual(['s3://bucket', 's3://bucket/..', 's3://bucket/a//b']);
    for (const { reason } of unread) expect(reason).toMatch(/path/);
  });

  test('of a path where nothing is are an error, of an empty bucket none', async () => {
    expect(await findJobsInBucket(holding(), root, marks)).toEqual({ urls: [], unread: [] });
    await expectCode('not-found', findJobsInBucket(holding(), team, marks), 'nothing is there');
  });

  test('are found among a million objects; of far more it is said that they are too many', async () => {
    let pages = 0;
    const many = (lastPage: number): ObjectClient => {
      const client = new MemoryClient();
      client.listKeys = () => {
        const page = ++pages;
        const keys = Array.from({ length: 1000 }, (_, i) => `jobs/${page}/${i === 500 ? 'mark' : `object-${i}`}`);
        return Promise.resolve({ keys, next: page === lastPage ? undefined : 'next' });
      };
      return client;
    };
    expect((await findJobsInBucket(many(1000), root, marks)).urls.length).toBe(1000);
    expect(pages).toBe(1000);
    pages = 0;
    await expectCode('usage', findJobsInBucket(many(1e9), root, marks), 'objects lie below');
  });

  test('are found although single pages fail in passing', async () => {
    let calls = 0;
    const client = new MemoryClient({
      before: () => {
        if (calls++ % 2 === 0) throw clientError('store', 'stumbled', true);
      },
    });
    for (let i = 0; i < 10; i++) client.objects.set(`${i}/mark`, Buffer.alloc(0));
    client.keysPerPage = 2;
    const patient = withRetries(client, { sleep: () => Promise.resolve() });
    expect((await findJobsInBucket(patient, root, marks)).urls.length).toBe(10);
  });
});
