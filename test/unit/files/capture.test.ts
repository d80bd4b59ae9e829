// SPDX-License-Identifier: Apache-2.0
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { captureFiles } from '../../../src/files/capture.js';
import { FILES_DATA } from '../../../src/files/entry.js';
import { newPrefix } from '../../../src/image/names.js';
import { type ImageWriter, createImageWriter } from '../../../src/image/writer.js';
import { makeDirectory, makeStore, noise } from '../image/support.js';

/** A writer with which the second piece of a file's data meets this error, as when a network file system refuses it. */
async function failingWriter(errno: string): Promise<ImageWriter> {
  const writer = await createImageWriter({ store: makeStore(), prefix: newPrefix(), numShards: 2, codec: 'lz4' });
  let pieces = 0;
  const file: ImageWriter['file'] = (name) => {
    const whole = writer.file(name);
    if (name !== FILES_DATA) return whole;
    return {
      reserve: () => {
        if (pieces > 0) throw Object.assign(new Error(`${errno}, read`), { code: errno, syscall: 'read' });
        return whole.reserve();
      },
      commit: (length) => {
        pieces++;
        whole.commit(length);
      },
      end: () => whole.end(),
    };
  };
  return new Proxy(writer, { get: (of, key) => (key === 'file' ? file : (Reflect.get(of, key) as unknown)) });
}

describe('a file that cannot be read to its end', () => {
  // The same errors where a file is opened only leave it out.
  test.each(['EACCES', 'EPERM', 'ENOENT', 'EIO'])('is no file that is left out: %s', async (errno) => {
    const root = makeDirectory();
    writeFileSync(join(root, 'large'), noise(3 << 20, 1));
    writeFileSync(join(root, 'other'), 'whole');
    const writer = await failingWriter(errno);
    const warnings: string[] = [];
    const captured = captureFiles({
      writer,
      roots: [root],
      except: [],
      warn: (text) => warnings.push(text),
      signal: new AbortController().signal,
    });
    await expect(captured).rejects.toMatchObject({ code: 'store', op: 'preserve', subject: join(root, 'large') });
    expect(warnings).toEqual([]);
    await writer.abort();
  });
});
