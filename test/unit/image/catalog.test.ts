// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { readCatalog } from '../../../src/image/catalog.js';
import { commitManifest } from '../../../src/image/generations.js';
import { buildManifest } from '../../../src/image/manifest.js';
import { manifestName } from '../../../src/image/names.js';
import { openStore } from '../../../src/store/store.js';
import { makeDirectory, noise, writeImage } from './support.js';

const FILES = new Map([['pages-1.img', noise(200_000, 1)]]);

describe('the catalog', () => {
  test('has every job with its generations, states and sizes', async () => {
    const top = makeDirectory();
    for (const name of ['running', 'nested/done']) {
      const store = openStore(join(top, name));
      await store.prepare();
      for (const generation of [1, 2]) {
        await commitManifest(store, (await writeImage(store, FILES, { generation })).manifest);
      }
    }
    const done = openStore(join(top, 'nested/done'));
    const writer = { version: '0.1.0', host: 'here', kernel: '6.1', criu: '4.2' };
    const finished = { exitCode: 3, signal: null };
    const createdAt = '2026-01-03T00:00:00.000Z';
    await commitManifest(done, buildManifest({ generation: 3, state: 'finished', createdAt, writer, finished }));
    // What is not ours counts for nothing.
    writeFileSync(join(top, 'running', 'notes.txt'), 'x'.repeat(1000));
    mkdirSync(join(top, 'other'));

    const { jobs, unread } = await readCatalog(`file:${top}`);
    expect(unread).toEqual([]);
    expect(jobs.map(({ url, state }) => [url, state])).toEqual([
      [`file:${top}/nested/done`, 'finished'],
      [`file:${top}/running`, 'checkpoint'],
    ]);
    const [, running] = jobs;
    expect(running?.generations).toMatchObject([
      { generation: 1, state: 'checkpoint', createdAt: '2026-01-02T03:04:05.678Z', host: 'here', rawBytes: 200_000 },
      { generation: 2 },
    ]);
    expect(running?.sizeBytes).toBeGreaterThan(400_000);
    expect(running?.sizeBytes).toBeLessThan(410_000);
    expect(running?.generations[0]?.storedBytes).toBeGreaterThan(200_000);
    expect(jobs[0]?.generations.at(-1)).toMatchObject({ generation: 3, rawBytes: null, storedBytes: null });
  });

  test('shows a damaged manifest as such, among the others', async () => {
    const top = makeDirectory();
    const store = openStore(top);
    await commitManifest(store, (await writeImage(store, FILES)).manifest);
    writeFileSync(join(top, manifestName(2)), '{}');
    const { jobs } = await readCatalog(top);
    expect(jobs).toMatchObject([
      {
        state: 'damaged',
        generations: [
          { generation: 1, state: 'checkpoint' },
          {
            generation: 2,
            state: 'damaged',
            createdAt: null,
            reason: expect.stringContaining('another tool') as unknown,
          },
        ],
      },
    ]);
  });

  test('of a place without jobs is empty', async () => {
    expect(await readCatalog(makeDirectory())).toEqual({ jobs: [], unread: [] });
  });
});
