// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CommitFence } from '../../../src/engine/commit-fence.js';
import { commitManifest } from '../../../src/image/generations.js';
import { buildManifest } from '../../../src/image/manifest.js';
import { manifestName } from '../../../src/image/names.js';
import { createFileStore } from '../../../src/store/file-store.js';
import type { Store } from '../../../src/store/store.js';
import { expectCode } from '../store/conformance.js';

describe('without leases', () => {
  let store: Store;
  let directory: string;
  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'ff-fence-'));
    store = createFileStore(directory);
    await store.prepare();
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const commit = (generation: number): Promise<'created' | 'exists'> =>
    store.createIfAbsent(manifestName(generation), Buffer.from('x'));

  test('whoever continues the newest generation, or has made it, may commit', async () => {
    const fence = new CommitFence(store, 0);
    await fence.check();
    await commit(1);
    fence.committed(1);
    await fence.check();
    await fence.confirm();
    await new CommitFence(store, 1).check();
  });

  test('a commit of ours of which only the answer got lost is known again', async () => {
    const fence = new CommitFence(store, 0);
    const writer = { version: '1', host: 'h', kernel: 'k', criu: 'c' };
    const finished = { exitCode: 0, signal: null };
    const manifest = buildManifest({
      generation: 1,
      state: 'finished',
      createdAt: new Date().toISOString(),
      writer,
      finished,
    });
    fence.attempting(manifest.checksum);
    await commitManifest(store, manifest);
    await fence.check();
    await commitManifest(store, buildManifest({ ...manifest, generation: 2 }));
    await expectCode('conflict', fence.check(), 'generation 2');
  });

  test('whoever does not, may not', async () => {
    const [one, other] = [new CommitFence(store, 3), new CommitFence(store, 3)];
    await commit(3);
    await other.check();
    await commit(4);
    one.committed(4);
    await one.confirm();
    const error = await expectCode('conflict', other.check(), 'generation 4');
    expect(error.hint).toContain('end this run');
    await expectCode('conflict', other.confirm());
  });
});
