// SPDX-License-Identifier: Apache-2.0
import { closeFd } from '../linux/fds.js';
import { receive } from '../linux/unix-socket.js';

/*
 * CRIU's image streamer protocol, one UNIX stream shared by all of CRIU's tasks, requests never interleaved:
 *
 *   request   u32 length (native order), then the protobuf { string filename = 1 }
 *   reply     restore only: u32 length, then the protobuf { bool exists = 1 }
 *   pipe      one byte carrying one end of a fresh pipe (SCM_RIGHTS); on restore only when the file exists
 *
 * Errors are never told in-band: either side closes its pipes and the socket.
 */

/** A file name longer than this is no request of CRIU's. */
const MAX_REQUEST_BYTES = 10 * 1024;

export type Step =
  | { readonly kind: 'request'; readonly filename: string }
  | { readonly kind: 'pipe'; readonly fd: number }
  | { readonly kind: 'again' }
  | { readonly kind: 'end' };

export interface RequestReader {
  /** The next thing on the socket. After a `request` whose file travels, call `expectPipe` before the next `read`. */
  read(): Step;
  expectPipe(): void;
}

/** Reads requests off a non-blocking socket without ever taking a byte of what follows. */
export function createRequestReader(socketFd: number): RequestReader {
  const head = Buffer.alloc(4);
  const one = Buffer.alloc(1);
  const body = Buffer.alloc(MAX_REQUEST_BYTES);
  let state: 'head' | 'body' | 'pipe' = 'head';
  let filled = 0;
  let bodyLength = 0;

  /** Fill `into` up to `length`; true when it is full. */
  const fill = (into: Buffer, length: number): true | Step => {
    while (filled < length) {
      const got = receive(socketFd, into.subarray(filled), length - filled);
      if (got === 'again') return { kind: 'again' };
      if (got.fd >= 0) closeFd(got.fd);
      if (got.length === 0) return { kind: 'end' };
      filled += got.length;
    }
    filled = 0;
    return true;
  };

  return {
    expectPipe() {
      state = 'pipe';
    },
    read() {
      if (state === 'pipe') {
        const got = receive(socketFd, one, 1);
        if (got === 'again') return { kind: 'again' };
        if (got.length === 0) return { kind: 'end' };
        if (got.fd < 0) throw new Error('CRIU sent no descriptor where the protocol has one');
        state = 'head';
        return { kind: 'pipe', fd: got.fd };
      }
      if (state === 'head') {
        const full = fill(head, 4);
        if (full !== true) return full;
        bodyLength = head.readUInt32LE(0);
        if (bodyLength === 0 || bodyLength > MAX_REQUEST_BYTES) {
          throw new Error(`CRIU sent a request of ${bodyLength} bytes, which no file name needs`);
        }
        state = 'body';
      }
      const full = fill(body, bodyLength);
      if (full !== true) return full;
      state = 'head';
      return { kind: 'request', filename: parseFilename(body.subarray(0, bodyLength)) };
    },
  };
}

/** The reply to a restore request. `exists` is spelt out even when false: CRIU requires the field. */
export function existsReply(exists: boolean): Buffer {
  return Buffer.from([2, 0, 0, 0, 0x08, exists ? 1 : 0]);
}

/** `filename` of an `img_streamer_request_entry`: field 1, length-delimited. */
export function parseFilename(message: Buffer): string {
  const { value: tag, next } = readVarint(message, 0);
  if (tag !== 0x0a) throw new Error(`CRIU sent field tag ${tag} where its protocol has a file name`);
  const { value: length, next: start } = readVarint(message, next);
  if (start + length !== message.length) throw new Error('CRIU sent a file name whose length does not add up');
  const name = message.toString('utf8', start);
  // The name becomes a file in `extract` and a key in the index: it must be nothing but a name.
  if (name === '' || name.includes('/') || name.includes('\0') || name === '.' || name === '..') {
    throw new Error(`CRIU asked for an image file of the impossible name ${JSON.stringify(name)}`);
  }
  return name;
}

function readVarint(bytes: Buffer, start: number): { value: number; next: number } {
  let value = 0;
  for (let i = start, scale = 1; i < bytes.length && i < start + 5; i++, scale *= 128) {
    const byte = bytes[i] ?? 0;
    value += (byte & 0x7f) * scale;
    if ((byte & 0x80) === 0) return { value, next: i + 1 };
  }
  throw new Error('CRIU sent a number that does not end');
}
