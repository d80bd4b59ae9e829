// SPDX-License-Identifier: Apache-2.0
import type { ImageReader } from '../../image/reader.js';
import { MAGIC, readEntries } from './entries.js';
import { FILES, rewriteFiles, withOtherFiles } from './other-files.js';
import { Message, appendCount, rewriteMessage } from './protobuf.js';

/**
 * The image with its connections to UNIX sockets outside of the job closed, as by a peer that has gone: CRIU would try to
 * connect them again, and could only for datagrams. Those stay connected where `reaches` finds their peer here by its name.
 */
export async function withOutsideClosed(
  image: ImageReader,
  reaches: (name: Uint8Array) => boolean,
): Promise<ImageReader> {
  return await withOtherFiles(image, (bytes) => closeOutside(bytes, reaches));
}

/** CRIU's list of open files, changed so. */
export function closeOutside(bytes: Buffer, reaches: (name: Uint8Array) => boolean): Buffer {
  const outside = new Map<number, Uint8Array>();
  for (const entry of readEntries(bytes, MAGIC.files, FILES)) {
    const socket = entry.message(UNIX_SOCKET);
    if (socket === undefined || ((socket.count(USER_FLAGS) ?? 0) & EXTERNAL) === 0) continue;
    outside.set(socket.count(INODE) ?? 0, socket.bytes(NAME) ?? new Uint8Array());
  }
  if (outside.size === 0) return bytes;
  return rewriteFiles(bytes, (entry) =>
    rewriteMessage(entry, FILES, (field, value) => {
      if (field !== UNIX_SOCKET || typeof value === 'bigint') return value;
      const socket = new Message(value, FILES);
      const name = outside.get(socket.count(PEER) ?? 0);
      if (name === undefined) return value;
      const isDatagram = socket.count(TYPE) === SOCK_DGRAM;
      if (isDatagram && name.length > 0 && reaches(name)) return value;
      const alone = rewriteMessage(value, FILES, (number, old) => (number === PEER ? 0n : old));
      // A stream without a peer is one that is shut down both ways; a datagram socket is merely not connected.
      return isDatagram ? alone : appendCount(alone, SHUTDOWN, SHUT_BOTH);
    }),
  );
}

// Fields of CRIU's fdinfo.proto and sk-unix.proto, and its numbers.
const UNIX_SOCKET = 16;
const INODE = 2;
const TYPE = 3;
const USER_FLAGS = 6;
const PEER = 8;
const NAME = 11;
const SHUTDOWN = 12;
const EXTERNAL = 1;
const SHUT_BOTH = 3;
// The kernel's.
const SOCK_DGRAM = 2;
