// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import type { ImageReader } from '../../image/reader.js';
import { FILES, rewriteFiles, withOtherFiles } from './other-files.js';
import { Message, rewriteMessage } from './protobuf.js';

/** TCP ports that listeners had, and those that they are to have. */
export type PortMap = ReadonlyMap<number, number>;

/**
 * The image with other ports for its TCP listeners: where it continues, the old ones may be taken. The application itself
 * is not told. Throws `conflict` for a port that nothing in the image listens on.
 */
export async function withOtherPorts(image: ImageReader, ports: PortMap): Promise<ImageReader> {
  if (ports.size === 0) return image;
  return await withOtherFiles(image, (files) => {
    const { bytes, found } = remapListeners(files, ports);
    const missing = [...ports.keys()].find((port) => !found.has(port));
    if (missing !== undefined) throw noListener(missing);
    return bytes;
  });
}

function noListener(port: number): FastFreezeError {
  return new FastFreezeError({
    code: 'conflict',
    op: 'give another port to the listener on',
    subject: `port ${port}`,
    reason: 'nothing in the image listens there',
    hint: 'fastfreeze inspect shows the sockets',
  });
}

/** CRIU's list of open files with other ports, and which of the old ones were there. */
export function remapListeners(bytes: Buffer, ports: PortMap): { bytes: Buffer; found: ReadonlySet<number> } {
  const found = new Set<number>();
  const rewritten = rewriteFiles(bytes, (entry) =>
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
