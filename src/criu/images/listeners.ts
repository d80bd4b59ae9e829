// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import type { ImageFileReader } from '../../image/image-file-reader.js';
import type { ImageReader } from '../../image/reader.js';
import { MAGIC, rewriteEntries } from './entries.js';
import { Message, rewriteMessage } from './protobuf.js';

/** TCP ports that listeners had, and those that they are to have. */
export type PortMap = ReadonlyMap<number, number>;

/**
 * The image with other ports for its TCP listeners: where it continues, the old ones may be taken. The application itself
 * is not told. Throws `conflict` for a port that nothing in the image listens on.
 */
export async function withOtherPorts(image: ImageReader, ports: PortMap): Promise<ImageReader> {
  if (ports.size === 0) return image;
  const { bytes, found } = remapListeners(await image.readAll(FILES, MAX_FILES_BYTES), ports);
  const missing = [...ports.keys()].find((port) => !found.has(port));
  if (missing !== undefined) {
    throw new FastFreezeError({
      code: 'conflict',
      op: 'give another port to the listener on',
      subject: `port ${missing}`,
      reason: 'nothing in the image listens there',
      hint: 'fastfreeze inspect shows the sockets',
    });
  }
  return {
    files: image.files,
    index: image.index,
    open: (name) => (name === FILES ? wholeFile(bytes) : image.open(name)),
    readAll: (name, maxBytes) => image.readAll(name, maxBytes),
    readAt: (name, offset, length) => image.readAt(name, offset, length),
    verifyRest: () => image.verifyRest(),
    close: () => image.close(),
  };
}

const FILES = 'files.img';
const MAX_FILES_BYTES = 64 << 20;

/** CRIU's list of open files with other ports, and which of the old ones were there. */
export function remapListeners(bytes: Buffer, ports: PortMap): { bytes: Buffer; found: ReadonlySet<number> } {
  const found = new Set<number>();
  const rewritten = rewriteEntries(bytes, MAGIC.files, FILES, (entry) =>
    rewriteMessage(entry, FILES, (field, socket) => {
      if (field !== INET_SOCKET || typeof socket === 'bigint') return socket;
      const message = new Message(socket, FILES);
      const port = message.count(SOURCE_PORT) ?? 0;
      const other = ports.get(port);
      if (other === undefined || message.count(PROTOCOL) !== TCP || message.count(STATE) !== LISTEN) return socket;
      found.add(port);
      return rewriteMessage(socket, FILES, (number, value) => (number === SOURCE_PORT ? BigInt(other) : value));
    }),
  );
  return { bytes: rewritten, found };
}

// Fields of CRIU's fdinfo.proto and sk-inet.proto.
const INET_SOCKET = 4;
const PROTOCOL = 5;
const STATE = 6;
const SOURCE_PORT = 7;
// The kernel's numbers.
const TCP = 6;
const LISTEN = 10;

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
