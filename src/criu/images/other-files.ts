// SPDX-License-Identifier: Apache-2.0
import type { ImageFileReader } from '../../image/image-file-reader.js';
import type { ImageReader } from '../../image/reader.js';
import { MAGIC, rewriteEntries } from './entries.js';

/** CRIU's list of open files. */
export const FILES = 'files.img';
const MAX_FILES_BYTES = 64 << 20;

/** The image with another list of open files than was saved. */
export async function withOtherFiles(image: ImageReader, rewrite: (bytes: Buffer) => Buffer): Promise<ImageReader> {
  const bytes = rewrite(await image.readAll(FILES, MAX_FILES_BYTES));
  return {
    files: image.files,
    index: image.index,
    open: (name) => (name === FILES ? wholeFile(bytes) : image.open(name)),
    readAll: (name, maxBytes) => (name === FILES ? Promise.resolve(bytes) : image.readAll(name, maxBytes)),
    readAt: (name, offset, length) => image.readAt(name, offset, length),
    verifyRest: (progress) => image.verifyRest(progress),
    close: () => image.close(),
  };
}

/** The list with other messages, each made of its old bytes. */
export function rewriteFiles(bytes: Buffer, rewrite: (entry: Buffer) => Buffer): Buffer {
  return rewriteEntries(bytes, MAGIC.files, FILES, rewrite);
}

function wholeFile(bytes: Buffer): ImageFileReader {
  let rest: Buffer | undefined = bytes;
  return {
    sizeBytes: bytes.length,
    next: () => {
      const piece = rest;
      rest = undefined;
      return Promise.resolve(piece === undefined ? undefined : { bytes: piece, release: () => undefined });
    },
    close: () => (rest = undefined),
  };
}
