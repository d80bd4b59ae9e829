// SPDX-License-Identifier: Apache-2.0
import { appendFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { FastFreezeError } from '../../../src/base/errors.js';
import { createFileHasher } from '../../../src/container/read-files.js';
import { startCarrying } from '../../../src/engine/carry.js';
import { newPrefix } from '../../../src/image/names.js';
import { openImage } from '../../../src/image/reader.js';
import { type ImageWriter, createImageWriter } from '../../../src/image/writer.js';
import { makeDirectory, makeStore, manifestOf } from '../image/support.js';

function replace(path: string): void {
  writeFileSync(`${path}.new`, 'older');
  renameSync(`${path}.new`, path);
}

/** A job that reads two files, one of which it opens late. */
async function begin(): Promise<{
  readonly store: ReturnType<typeof makeStore>;
  readonly writer: ImageWriter;
  readonly hasher: ReturnType<typeof createFileHasher>;
  readonly carrying: ReturnType<typeof startCarrying>;
  readonly stop: AbortController;
  readonly early: string;
  readonly late: string;
}> {
  const directory = makeDirectory();
  const [early, late] = [join(directory, 'early'), join(directory, 'late')];
  writeFileSync(early, 'early');
  writeFileSync(late, 'late');
  const store = makeStore();
  const writer = await createImageWriter({ store, prefix: newPrefix(), numShards: 1, codec: 'lz4' });
  // Too small to hash either of them whole.
  const hasher = createFileHasher({ maxWholeBytes: 1 });
  const stop = new AbortController();
  const carrying = startCarrying(writer, hasher, stop.signal);
  await carrying.take([early]);
  return { store, writer, hasher, carrying, stop, early, late };
}

describe('files that are taken along', () => {
  test('are those of before the freeze and those that were opened since, each hashed whole and once', async () => {
    const { store, writer, hasher, carrying, early, late } = await begin();
    const { reads, carried } = await carrying.complete(await hasher.describe([early, late]));
    expect(reads).toMatchObject([
      { path: early, sizeBytes: 5, sampled: false },
      { path: late, sizeBytes: 4, sampled: false },
    ]);
    expect(carried).toEqual({ files: 2, dataBytes: 9 });
    const image = await openImage({ store, manifest: manifestOf(await writer.finish()) });
    expect((await image.readAll('fastfreeze-carried.data', 100)).toString()).toBe('earlylate');
    image.close();
  });

  test.each([
    ['written to', (path: string) => appendFileSync(path, '!')],
    ['another one', (path: string) => replace(path)],
  ])('and are %s when the application stands still: the next attempt takes those', async (_, change) => {
    const { writer, hasher, carrying, early, late } = await begin();
    change(early);
    const reads = await createFileHasher().describe([early, late]);
    await expect(carrying.complete(reads)).rejects.toMatchObject({ code: 'conflict', subject: early, passing: true });
    await writer.abort();
    expect(hasher.recall(early, statSync(early, { bigint: true }))).toBeUndefined();
  });

  test('are given up with the error of whoever gives them up', async () => {
    const { writer, hasher, carrying, stop, early, late } = await begin();
    const reads = await hasher.describe([early, late]);
    stop.abort(new FastFreezeError({ code: 'store', op: 'finish the checkpoint', reason: 'nothing has moved' }));
    await expect(carrying.complete(reads)).rejects.toMatchObject({ code: 'store', reason: 'nothing has moved' });
    await writer.abort();
  });
});
