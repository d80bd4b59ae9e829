// SPDX-License-Identifier: Apache-2.0
/* What is known of a spool: what waits in it, and how fast it gets to where it belongs. */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { emptySpool, readCopyPace, readSpool, spoolUrl } from '../../../src/engine/spool.js';
import { commitManifest, listGenerations } from '../../../src/image/generations.js';
import { openStore } from '../../../src/store/store.js';
import { noise, writeImage } from '../image/support.js';
import { makeDirectory } from '../linux/support.js';

test('what waits counts until it is there; how fast that went is known from then on, for this place alone', async () => {
  const [directory, there] = [makeDirectory(), makeDirectory()];
  const url = `file:${there}`;
  expect(readSpool(directory, url)).toEqual({ waitingBytes: 0, pace: undefined });
  const store = openStore(spoolUrl(directory, url));
  await store.prepare();
  const written = await writeImage(store, new Map([['pages-1.img', noise(18 * 2 ** 20, 1)]]), { generation: 1 });
  await commitManifest(store, written.manifest);
  expect(readSpool(directory, url).waitingBytes).toBeGreaterThanOrEqual(18 * 2 ** 20);

  const startedMs = performance.now();
  await emptySpool({ directory, url, keep: 2, log: () => undefined });
  const tookMs = performance.now() - startedMs;
  expect(await listGenerations(openStore(url))).toEqual([1]);
  const { waitingBytes, pace } = readSpool(directory, url);
  expect(waitingBytes).toBeLessThan(2 ** 20);
  // It was part of what took so long, so it was faster than that.
  expect(pace?.bytesPerSecond).toBeGreaterThan(((18 * 2 ** 20) / tookMs) * 1000 * 0.999);
  expect(readCopyPace(directory, url)).toEqual(pace);
  expect(readCopyPace(directory, `${url}/other`)).toBeUndefined();

  const note = readdirSync(directory).find((name) => name.endsWith('.pace')) ?? 'no note';
  writeFileSync(join(directory, note), '{"fixedMs":');
  expect(readSpool(directory, url).pace).toBeUndefined();
});
