// SPDX-License-Identifier: Apache-2.0
import { closeSync, mkdirSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import { listGenerations, readManifest } from '../image/generations.js';
import { type ImageReader, openImage } from '../image/reader.js';
import { type OpenOptions, openStore } from '../store/store.js';
import { keysWith } from './passphrase.js';

export interface ExtractOptions {
  readonly imageUrl: string;
  readonly outputDirectory: string;
  readonly generation?: number;
  readonly allowBadImageVersion: boolean;
  readonly passphrase?: string;
  /** Told of each file once it is complete. */
  readonly extracted?: (name: string, sizeBytes: number) => void;
}

export interface Extracted {
  readonly generation: number;
  readonly files: number;
  readonly bytes: number;
}

/** Write an image's files into a directory that plain `criu restore` accepts. Every byte is verified first. */
export async function extract(options: ExtractOptions, opening: OpenOptions = {}): Promise<Extracted> {
  const store = openStore(options.imageUrl, opening);
  const generation = options.generation ?? (await listGenerations(store)).at(-1);
  if (generation === undefined) {
    throw new FastFreezeError({
      code: 'not-found',
      op: 'extract',
      subject: options.imageUrl,
      reason: 'there is no image',
      hint: 'check the URL',
    });
  }
  const manifest = await readManifest(store, generation, { allowBadVersion: options.allowBadImageVersion });
  if (manifest.state === 'finished') {
    throw new FastFreezeError({
      code: 'not-found',
      op: 'extract',
      subject: options.imageUrl,
      reason: `the newest generation (${generation}) only says that the job has finished`,
      hint: `--generation ${generation - 1} may hold its last image`,
    });
  }
  const keys = await keysWith(options.passphrase)(manifest);
  const directory = options.outputDirectory;
  prepareDirectory(directory);
  const image = await openImage({ store, manifest, keys });
  const written: string[] = [];
  try {
    let bytes = 0;
    for (const name of image.files.keys()) {
      const sizeBytes = await extractFile(image, name, pathFor(directory, name), written);
      options.extracted?.(name, sizeBytes);
      bytes += sizeBytes;
    }
    return { generation, files: written.length, bytes };
  } catch (error) {
    // Half an image must not look like one.
    for (const path of written) rmSync(path, { force: true });
    throw error;
  } finally {
    image.close();
  }
}

/** An image comes from storage: what it calls its files must not lead out of the directory. */
function pathFor(directory: string, name: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) return join(directory, name);
  throw new FastFreezeError({
    code: 'image',
    op: 'extract',
    subject: JSON.stringify(name),
    reason: 'no file of CRIU has such a name: the image was not made by fastfreeze',
  });
}

async function extractFile(image: ImageReader, name: string, path: string, written: string[]): Promise<number> {
  const file = image.open(name);
  if (file === undefined) return 0;
  const fd = openSync(path, 'wx', 0o600);
  written.push(path);
  let bytes = 0;
  try {
    for (;;) {
      const piece = await file.next();
      if (piece === undefined) return bytes;
      try {
        for (let done = 0; done < piece.bytes.length;) done += writeSync(fd, piece.bytes, done);
        bytes += piece.bytes.length;
      } finally {
        piece.release();
      }
    }
  } finally {
    file.close();
    closeSync(fd);
  }
}

function prepareDirectory(directory: string): void {
  const op = 'extract into';
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    if (readdirSync(directory).length === 0) return;
  } catch (error) {
    throw asFastFreezeError(error, op, directory);
  }
  throw new FastFreezeError({
    code: 'usage',
    op,
    subject: directory,
    reason: 'it is not empty',
    hint: 'name an empty or new directory with --output-dir',
  });
}
