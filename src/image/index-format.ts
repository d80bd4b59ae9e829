// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { FastFreezeError } from '../base/errors.js';
import { CHUNK_RECORD_BYTES, ChunkTable } from './chunk-table.js';
import { checkIndex } from './index-check.js';
import type { Cipher } from './layout.js';
import type { ShardId } from './names.js';

// The index object, byte for byte as docs/image-format.md gives it.

export interface IndexedShard extends ShardId {
  readonly sizeBytes: number;
}

export interface IndexedFile {
  readonly sizeBytes: number;
  readonly firstExtent: number;
  readonly extentCount: number;
}

/** What an image consists of: which bytes of which chunks make up each file, and where the chunks lie. */
export interface ImageIndex {
  /** Seed of every chunk's hash. A later image that wants to reuse chunks keeps it. */
  readonly hashSeed: bigint;
  readonly shards: readonly IndexedShard[];
  readonly chunks: ChunkTable;
  readonly files: ReadonlyMap<string, IndexedFile>;
  /** Triples: number of a chunk, offset in its raw bytes, length. */
  readonly extents: Uint32Array;
}

export const EXTENT_WORDS = 3;
/** Larger than any image this version can write; keeps a forged size from becoming an allocation. */
export const MAX_INDEX_BYTES = 2 ** 31 - 1;

const MAGIC = 'FFINDEX1';
const VERSION = 1;
const HEADER_BYTES = 64;
const SHARD_BYTES = 16;
const FILE_BYTES = 24;
const EXTENT_BYTES = 4 * EXTENT_WORDS;
const DIGEST_BYTES = 32;

export function encodeIndex(index: ImageIndex): Buffer {
  const prefixes = [...new Set(index.shards.map((shard) => shard.prefix))];
  const prefixBytes = Buffer.from(prefixes.map((prefix) => `${prefix}\n`).join(''), 'latin1');
  const names = [...index.files.keys()].map((name) => Buffer.from(name, 'utf8'));
  const nameBytes = Buffer.concat(names);

  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 0, 'latin1');
  header.writeUInt32LE(VERSION, 8);
  header.writeBigUInt64LE(index.hashSeed, 16);
  header.writeUInt32LE(prefixBytes.length, 24);
  header.writeUInt32LE(index.shards.length, 28);
  header.writeUInt32LE(index.chunks.length, 32);
  header.writeUInt32LE(index.files.size, 36);
  header.writeUInt32LE(index.extents.length / EXTENT_WORDS, 40);
  header.writeUInt32LE(nameBytes.length, 44);

  const shards = Buffer.alloc(SHARD_BYTES * index.shards.length);
  index.shards.forEach((shard, i) => {
    shards.writeUInt32LE(prefixes.indexOf(shard.prefix), SHARD_BYTES * i);
    shards.writeUInt32LE(shard.number, SHARD_BYTES * i + 4);
    shards.writeBigUInt64LE(BigInt(shard.sizeBytes), SHARD_BYTES * i + 8);
  });

  const files = Buffer.alloc(FILE_BYTES * index.files.size);
  let nameAt = 0;
  [...index.files.values()].forEach((file, i) => {
    const nameLength = names[i]?.length ?? 0;
    files.writeBigUInt64LE(BigInt(file.sizeBytes), FILE_BYTES * i);
    files.writeUInt32LE(file.firstExtent, FILE_BYTES * i + 8);
    files.writeUInt32LE(file.extentCount, FILE_BYTES * i + 12);
    files.writeUInt32LE(nameAt, FILE_BYTES * i + 16);
    files.writeUInt32LE(nameLength, FILE_BYTES * i + 20);
    nameAt += nameLength;
  });

  const extents = Buffer.alloc(4 * index.extents.length);
  index.extents.forEach((word, i) => extents.writeUInt32LE(word, 4 * i));

  const sections = [header, shards, index.chunks.bytes(), files, extents, prefixBytes, nameBytes];
  const digest = createHash('sha256');
  for (const section of sections) digest.update(section);
  return Buffer.concat([...sections, digest.digest()]);
}

/** Reads and checks everything; whatever the bytes are, it ends with an index that is sound or an `image` error. */
export function decodeIndex(bytes: Buffer, subject: string, cipher: Cipher = 'none'): ImageIndex {
  const refuse = (reason: string): FastFreezeError =>
    new FastFreezeError({ code: 'image', op: 'read the index', subject, reason });

  if (bytes.length < HEADER_BYTES + DIGEST_BYTES) throw refuse(`it is truncated: only ${bytes.length} bytes`);
  if (bytes.toString('latin1', 0, 8) !== MAGIC) throw refuse('it is not an index, or its first bytes are damaged');
  const body = bytes.subarray(0, bytes.length - DIGEST_BYTES);
  if (!createHash('sha256').update(body).digest().equals(bytes.subarray(body.length))) {
    throw refuse('its checksum does not match: it is damaged or cut short');
  }
  const version = bytes.readUInt32LE(8);
  if (version !== VERSION) throw refuse(`it has format version ${version}, this program reads ${VERSION}`);
  const reserved = bytes.subarray(48, HEADER_BYTES);
  if (bytes.readUInt32LE(12) !== 0 || reserved.some((byte) => byte !== 0))
    throw refuse('it uses features that this program does not know');

  const [prefixBytes, shardCount, chunkCount, fileCount, extentCount, nameBytes] = [24, 28, 32, 36, 40, 44].map((at) =>
    bytes.readUInt32LE(at),
  ) as [number, number, number, number, number, number];
  let at = HEADER_BYTES;
  const section = (length: number): Buffer => {
    at += length;
    return body.subarray(at - length, Math.min(at, body.length));
  };
  const shardRecords = section(SHARD_BYTES * shardCount);
  const chunkRecords = section(CHUNK_RECORD_BYTES * chunkCount);
  const fileRecords = section(FILE_BYTES * fileCount);
  const extentRecords = section(EXTENT_BYTES * extentCount);
  const prefixRecords = section(prefixBytes);
  const nameRecords = section(nameBytes);
  if (at !== body.length) throw refuse('its sections do not add up to its size');

  const prefixes = prefixRecords.toString('latin1').split('\n').slice(0, -1);
  const shards = Array.from({ length: shardCount }, (_, i) => ({
    prefix: prefixes[shardRecords.readUInt32LE(SHARD_BYTES * i)] ?? '',
    number: shardRecords.readUInt32LE(SHARD_BYTES * i + 4),
    sizeBytes: Number(shardRecords.readBigUInt64LE(SHARD_BYTES * i + 8)),
  }));
  const files = new Map<string, IndexedFile>();
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  for (let i = 0; i < fileCount; i++) {
    const nameAt = fileRecords.readUInt32LE(FILE_BYTES * i + 16);
    const nameEnd = nameAt + fileRecords.readUInt32LE(FILE_BYTES * i + 20);
    if (nameEnd > nameRecords.length) throw refuse(`the name of file ${i} lies outside of it`);
    let name: string;
    try {
      name = decoder.decode(nameRecords.subarray(nameAt, nameEnd));
    } catch {
      throw refuse(`the name of file ${i} is not UTF-8`);
    }
    if (files.has(name)) throw refuse(`it lists the file ${JSON.stringify(name)} twice`);
    files.set(name, {
      sizeBytes: Number(fileRecords.readBigUInt64LE(FILE_BYTES * i)),
      firstExtent: fileRecords.readUInt32LE(FILE_BYTES * i + 8),
      extentCount: fileRecords.readUInt32LE(FILE_BYTES * i + 12),
    });
  }
  const extents = Uint32Array.from({ length: EXTENT_WORDS * extentCount }, (_, i) => extentRecords.readUInt32LE(4 * i));
  const index = {
    hashSeed: bytes.readBigUInt64LE(16),
    shards,
    chunks: new ChunkTable(chunkRecords),
    files,
    extents,
  };
  checkIndex(index, cipher, refuse);
  return index;
}
