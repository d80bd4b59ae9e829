// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import { Message } from './protobuf.js';

/** The files that are read here, by the second of the two magic numbers that they begin with. */
export const MAGIC = {
  pstree: 0x50273030,
  core: 0x55053847,
  ids: 0x54432030,
  mm: 0x57492820,
  pagemap: 0x56084025,
  files: 0x56303138,
  fdinfo: 0x56213732,
  cpuinfo: 0x61404013,
} as const;

const COMMON_MAGIC = 0x54564319;

/** The messages of one of CRIU's image files: two magic numbers, then each message after its length. */
export function readEntries(bytes: Buffer, magic: number, name: string): Message[] {
  return splitEntries(bytes, magic, name).map((entry) => new Message(entry, name));
}

/** The same file with other messages, each made of its old bytes. */
export function rewriteEntries(bytes: Buffer, magic: number, name: string, rewrite: (entry: Buffer) => Buffer): Buffer {
  const parts = splitEntries(bytes, magic, name).flatMap((entry) => {
    const rewritten = rewrite(entry);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(rewritten.length);
    return [length, rewritten];
  });
  return Buffer.concat([bytes.subarray(0, 8), ...parts]);
}

function splitEntries(bytes: Buffer, magic: number, name: string): Buffer[] {
  const refuse = (reason: string): FastFreezeError =>
    new FastFreezeError({ code: 'image', op: 'understand', subject: name, reason });
  if (bytes.length < 8 || bytes.readUInt32LE(0) !== COMMON_MAGIC || bytes.readUInt32LE(4) !== magic) {
    throw refuse('it does not begin as such a file of CRIU does');
  }
  const entries: Buffer[] = [];
  for (let at = 8; at < bytes.length;) {
    if (bytes.length - at < 4) throw refuse('it is cut short');
    const length = bytes.readUInt32LE(at);
    at += 4;
    if (length > bytes.length - at) throw refuse('it is cut short');
    entries.push(bytes.subarray(at, at + length));
    at += length;
  }
  return entries;
}
