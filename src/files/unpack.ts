// SPDX-License-Identifier: Apache-2.0
import { closeSync, constants, ftruncateSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import type { ImageReader } from '../image/reader.js';
import { setAttributes } from './attributes.js';
import { CARRIED_DATA, CARRIED_LIST, type FileEntry, shown, toBytePath } from './entry.js';
import { FileHash } from './file-bytes.js';
import { DataStream, readEntries } from './read-list.js';
import { writeFully } from './update.js';

/** What the manifest says of a file that is wanted. */
export interface WantedFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** Permission bits. */
  readonly mode: number;
  /** Of all of it, in hexadecimal digits. */
  readonly sha256: string;
}

/**
 * Write carried files of an image into a directory of ours, under numbers, without setuid bits. Returns where each of them
 * is; one that the image does not have is left out. Throws `image` where what it has is not what its manifest says.
 */
export async function unpackCarried(
  image: ImageReader,
  wanted: readonly WantedFile[],
  directory: string,
  progress: (bytes: number) => void,
): Promise<Map<string, string>> {
  const missing = new Map(wanted.map((file) => [toBytePath(file.path), file]));
  const found = new Map<string, string>();
  const data = new DataStream(image, CARRIED_DATA);
  try {
    for await (const entry of readEntries(image, CARRIED_LIST)) {
      if (entry.type !== 'file') throw damaged(entry.path);
      const file = missing.get(entry.path);
      if (file === undefined) {
        for (const [, length] of entry.data) await data.skip(length);
      } else {
        missing.delete(entry.path);
        const target = join(directory, String(found.size));
        await unpack(entry, file, target, data);
        found.set(file.path, target);
      }
      progress(data.bytes);
    }
    await data.assertEnd();
    return found;
  } finally {
    data.close();
  }
}

type Entry = FileEntry & { readonly type: 'file' };

async function unpack(entry: Entry, file: WantedFile, target: string, data: DataStream): Promise<void> {
  const { sizeBytes, mode, sha256 } = file;
  if (entry.sizeBytes !== sizeBytes || entry.mode !== mode) throw damaged(entry.path);
  const hash = new FileHash();
  try {
    const fd = openSync(
      target,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    );
    try {
      for (const [from, length] of entry.data) {
        await hash.fill(from);
        await data.take(length, async (bytes, done) => {
          hash.add(bytes);
          await writeFully(fd, bytes, from + done);
        });
      }
      ftruncateSync(fd, sizeBytes);
    } finally {
      closeSync(fd);
    }
    // An owner that this user cannot give is no loss: it is there to be read.
    setAttributes(target, 'file', entry, { preserveSetuid: false, missed: () => undefined });
  } catch (error) {
    throw asFastFreezeError(error, 'unpack', shown(entry.path));
  }
  if ((await hash.finish(sizeBytes)) !== sha256) throw damaged(entry.path);
}

function damaged(path: string): FastFreezeError {
  return new FastFreezeError({
    code: 'image',
    op: 'unpack',
    subject: shown(path),
    reason: 'what the image carries is not what its manifest says of it',
  });
}
