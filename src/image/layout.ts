// SPDX-License-Identifier: Apache-2.0
import type { HashWords } from '../linux/codecs.js';

// The bytes of a chunk as docs/image-format.md gives them. All numbers are little-endian.

export const MAX_CHUNK_BYTES = 1 << 20;
export const CHUNK_HEADER_BYTES = 32;
const CHUNK_MAGIC = 0x4b434646; // "FFCK"

export type Codec = 'none' | 'lz4' | 'zstd';
/** Of an image. */
export const CODECS: readonly Codec[] = ['none', 'lz4', 'zstd'];

/** Of a chunk. What an image calls lz4 has chunks of either format. */
export type ChunkCodec = Codec | 'lz4-frame';
export const CHUNK_CODECS: readonly ChunkCodec[] = [...CODECS, 'lz4-frame'];

export type Cipher = 'none' | 'aes-256-gcm';
export const CIPHERS: readonly Cipher[] = ['none', 'aes-256-gcm'];
/** At the end of what is encrypted. */
export const TAG_BYTES = 16;
const NO_HASH: HashWords = { a: 0, b: 0, c: 0, d: 0 };

/** Everything a chunk's header says, which is everything its index entry says but the place. */
export interface ChunkFacts {
  readonly codec: ChunkCodec;
  readonly cipher: Cipher;
  readonly rawBytes: number;
  /** With the tag, where it is encrypted. */
  readonly storedBytes: number;
  readonly hash: HashWords;
}

/**
 * `payload` is the hash of the bytes as stored, where they are not the raw ones: decoders take some damage for nothing. An
 * encrypted chunk shows no hash of what is in it, and needs none of what is stored.
 */
export function writeChunkHeader(into: Buffer, at: number, facts: ChunkFacts, payload?: HashWords): void {
  into.writeUInt32LE(CHUNK_MAGIC, at);
  into.writeUInt8(CHUNK_CODECS.indexOf(facts.codec), at + 4);
  into.writeUInt8(CIPHERS.indexOf(facts.cipher), at + 5);
  into.writeUInt16LE((payload?.a ?? 0) & 0xffff, at + 6);
  into.writeUInt32LE(facts.rawBytes, at + 8);
  into.writeUInt32LE(facts.storedBytes, at + 12);
  const hash = facts.cipher === 'none' ? facts.hash : NO_HASH;
  into.writeUInt32LE(hash.a, at + 16);
  into.writeUInt32LE(hash.b, at + 20);
  into.writeUInt32LE(hash.c, at + 24);
  into.writeUInt32LE(hash.d, at + 28);
}

export function sameHash(one: HashWords, other: HashWords): boolean {
  return one.a === other.a && one.b === other.b && one.c === other.c && one.d === other.d;
}
