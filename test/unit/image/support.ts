// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from '@jest/globals';
import type { Codec } from '../../../src/image/layout.js';
import { type Manifest, buildManifest } from '../../../src/image/manifest.js';
import { newPrefix } from '../../../src/image/names.js';
import { type ImageReader, openImage } from '../../../src/image/reader.js';
import { FastFreezeError } from '../../../src/base/errors.js';
import { type ImageWriter, type ImageWriterOptions, createImageWriter } from '../../../src/image/writer.js';
import type { SealedImage } from '../../../src/image/manifest.js';
import { type Store, openStore } from '../../../src/store/store.js';

const directories: string[] = [];
afterAll(() => directories.forEach((directory) => rmSync(directory, { recursive: true, force: true })));

export function makeDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'ff-image-'));
  directories.push(directory);
  return directory;
}

export function makeStore(): Store & { readonly directory: string } {
  const directory = makeDirectory();
  return Object.assign(openStore(directory), { directory });
}

/** Feed a file as a capture loop does: ask, fill at most `step` bytes, commit; wait when there is no room. */
export async function feed(image: ImageWriter, name: string, bytes: Uint8Array, step = 1 << 20): Promise<void> {
  const file = image.file(name);
  for (let at = 0; at < bytes.length;) {
    const region = file.reserve();
    if (region === undefined) {
      await image.room();
      continue;
    }
    const part = bytes.subarray(at, at + Math.min(step, region.length));
    region.set(part);
    file.commit(part.length);
    at += part.length;
  }
  file.end();
}

export type Files = ReadonlyMap<string, Uint8Array>;

export interface Written {
  readonly sealed: SealedImage;
  readonly manifest: Manifest;
  readonly stats: ImageWriter['stats'];
}

export async function writeImage(
  store: Store,
  files: Files,
  options: Partial<ImageWriterOptions> & { generation?: number; step?: number } = {},
): Promise<Written> {
  const { generation = 1, step, ...rest } = options;
  const image = await createImageWriter({
    store,
    prefix: newPrefix(),
    numShards: 2,
    codec: 'lz4' satisfies Codec,
    ...rest,
  });
  for (const [name, bytes] of files) await feed(image, name, bytes, step);
  const sealed = await image.finish();
  return { sealed, manifest: manifestOf(sealed, generation), stats: image.stats };
}

export function manifestOf(sealed: SealedImage, generation = 1): Manifest {
  return buildManifest({
    generation,
    state: 'checkpoint',
    createdAt: '2026-01-02T03:04:05.678Z',
    writer: { version: '0.1.0', host: 'here', kernel: '6.1', criu: '4.2.1' },
    image: sealed,
    app: { pid: 1000, names: ['ä', '€'] },
  });
}

export async function readAll(image: ImageReader): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for (const name of image.files.keys()) files.set(name, await image.readAll(name, 2 ** 30));
  return files;
}

export async function readImage(store: Store, manifest: Manifest): Promise<Map<string, Buffer>> {
  const image = await openImage({ store, manifest });
  try {
    return await readAll(image);
  } finally {
    image.close();
  }
}

/** Bytes that no codec can shrink, the same for the same seed. */
export function noise(length: number, seed: number): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return Buffer.from(words.buffer, 0, length);
}

/** A store that fails one operation: the `failAt`-th of those that write. Counts them in `calls`. */
export function faultyStore(store: Store, failAt: number): Store & { readonly calls: () => number } {
  let calls = 0;
  const guard = async <T>(action: () => Promise<T>): Promise<T> => {
    if (++calls === failAt) {
      throw new FastFreezeError({ code: 'store', op: 'write', subject: 'fault', reason: 'no space is left (ENOSPC)' });
    }
    return action();
  };
  return {
    ...store,
    calls: () => calls,
    createIfAbsent: (name, bytes) => guard(() => store.createIfAbsent(name, bytes)),
    put: (name, bytes) => guard(() => store.put(name, bytes)),
    createWriter: (name) =>
      guard(async () => {
        const writer = await store.createWriter(name);
        return {
          append: (parts) => guard(() => writer.append(parts)),
          finish: () => guard(() => writer.finish()),
          abort: () => writer.abort(),
        };
      }),
  };
}
