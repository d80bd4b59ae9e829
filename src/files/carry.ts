// SPDX-License-Identifier: Apache-2.0
import { type BigIntStats, closeSync, constants, fstatSync, openSync } from 'node:fs';
import { FastFreezeError, asFastFreezeError, hasErrno } from '../base/errors.js';
import { append } from '../image/append.js';
import type { ImageWriter } from '../image/writer.js';
import { plainAttributes } from './attributes.js';
import { CARRIED_DATA, CARRIED_LIST, formatEntry, toBuffer, toBytePath } from './entry.js';
import { FileHash, dataLength, readFileData } from './file-bytes.js';

/** A file as it is in the image. */
export interface Carried {
  /** Of what was read. */
  readonly stat: BigIntStats;
  /** Of all of it, in hexadecimal digits. */
  readonly sha256: string;
}

export interface Carrier {
  /**
   * Put the regular file at `path` into the image, whole. Its hash is worked out on the way, unless `known` has it for the
   * file that is there. Undefined when there is no such file, or it may not be read. Throws `conflict`, as something that
   * passes, for one that changes meanwhile.
   */
  add(path: string, known: (stat: BigIntStats) => string | undefined): Promise<Carried | undefined>;
  /** No more will come. */
  end(): { readonly files: number; readonly dataBytes: number };
}

/** Put files that only have to be read into an image, one after the other. */
export function createCarrier(writer: ImageWriter, signal: AbortSignal): Carrier {
  const [list, file] = [writer.file(CARRIED_LIST), writer.file(CARRIED_DATA)];
  let files = 0;
  let dataBytes = 0;
  return {
    async add(path, known) {
      const fd = openToRead(path);
      if (fd === undefined) return undefined;
      try {
        const stat = fstatSync(fd, { bigint: true });
        if (!stat.isFile()) return undefined;
        const sha256 = known(stat);
        const hash = sha256 === undefined ? new FileHash() : undefined;
        const data = await readFileData(fd, { writer, file, signal, hash });
        if (!isSame(stat, fstatSync(fd, { bigint: true }))) throw changed(path);
        const entry = { path: toBytePath(path), type: 'file', ...plainAttributes(stat), ...data } as const;
        await append(writer, list, Buffer.from(formatEntry(entry)));
        files++;
        dataBytes += dataLength(data);
        return { stat, sha256: sha256 ?? (await hash?.finish(data.sizeBytes, signal)) ?? '' };
      } catch (error) {
        throw asFastFreezeError(error, 'take along', path);
      } finally {
        closeSync(fd);
      }
    },
    end() {
      list.end();
      file.end();
      return { files, dataBytes };
    },
  };
}

function openToRead(path: string): number | undefined {
  try {
    return openSync(toBuffer(toBytePath(path)), constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'ENXIO')) return undefined;
    throw asFastFreezeError(error, 'take along', path);
  }
}

function isSame(before: BigIntStats, after: BigIntStats): boolean {
  return before.size === after.size && before.mtimeNs === after.mtimeNs && before.ctimeNs === after.ctimeNs;
}

/** What is in the image would not be what the application has. */
export function changed(path: string): FastFreezeError {
  return new FastFreezeError({
    code: 'conflict',
    op: 'take along',
    subject: path,
    reason: 'it is being changed, and the application only reads it',
    hint: 'wait until nobody writes to it, or take its directory along with --preserve-path',
    passing: true,
  });
}
