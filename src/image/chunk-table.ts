// SPDX-License-Identifier: Apache-2.0
import type { HashWords } from '../linux/codecs.js';
import { CHUNK_CODECS, CIPHERS, type ChunkCodec, type ChunkFacts, type Cipher } from './layout.js';

/** One record of the index's chunk section. */
export const CHUNK_RECORD_BYTES = 40;

export interface ChunkPlace {
  /** Position in the index's shard table. */
  readonly shard: number;
  /** Of the chunk's header within the shard. */
  readonly offset: number;
}

/**
 * The chunks of an image, as the very bytes that stand in the index: an application of 64 GiB has some 80 000 of them,
 * and as objects they would weigh more than all our buffers. Finds a chunk by its content's hash.
 */
export class ChunkTable {
  private records: Buffer;
  private used: number;
  /** Open addressing: number of a chunk plus one, or 0. Always at most half full. */
  private slots: Uint32Array;

  constructor(records: Buffer = Buffer.alloc(0)) {
    this.records = records;
    this.used = records.length / CHUNK_RECORD_BYTES;
    this.slots = new Uint32Array(0);
  }

  get length(): number {
    return this.used;
  }

  /** The records so far, in place. */
  bytes(): Buffer {
    return this.records.subarray(0, this.used * CHUNK_RECORD_BYTES);
  }

  /** Add a chunk whose place and stored form are not known yet. Returns its number. */
  add(hash: HashWords, rawBytes: number): number {
    const number = this.used;
    const at = number * CHUNK_RECORD_BYTES;
    if (at === this.records.length) this.records = grown(this.records);
    this.used++;
    this.records.fill(0, at, at + 24);
    this.records.writeUInt32LE(rawBytes, at + 4);
    this.records.writeUInt32LE(hash.a, at + 24);
    this.records.writeUInt32LE(hash.b, at + 28);
    this.records.writeUInt32LE(hash.c, at + 32);
    this.records.writeUInt32LE(hash.d, at + 36);
    this.remember(number);
    return number;
  }

  setStored(
    number: number,
    { codec, cipher, storedBytes }: Pick<ChunkFacts, 'codec' | 'cipher' | 'storedBytes'>,
  ): void {
    const at = number * CHUNK_RECORD_BYTES;
    this.records.writeUInt32LE(storedBytes, at + 16);
    this.records.writeUInt8(CHUNK_CODECS.indexOf(codec), at + 20);
    this.records.writeUInt8(CIPHERS.indexOf(cipher), at + 21);
  }

  setPlace(number: number, place: ChunkPlace): void {
    const at = number * CHUNK_RECORD_BYTES;
    this.records.writeUInt32LE(place.shard, at);
    this.records.writeBigUInt64LE(BigInt(place.offset), at + 8);
  }

  /** A chunk of this content, or undefined. */
  find(hash: HashWords, rawBytes: number): number | undefined {
    if (this.slots.length < 2 * this.used) this.rehash();
    if (this.slots.length === 0) return undefined;
    const mask = this.slots.length - 1;
    for (let slot = hash.a & mask; ; slot = (slot + 1) & mask) {
      const number = (this.slots[slot] ?? 0) - 1;
      if (number < 0) return undefined;
      if (this.has(number, hash, rawBytes)) return number;
    }
  }

  place(number: number): ChunkPlace {
    const at = number * CHUNK_RECORD_BYTES;
    return { shard: this.records.readUInt32LE(at), offset: Number(this.records.readBigUInt64LE(at + 8)) };
  }

  rawBytes(number: number): number {
    return this.records.readUInt32LE(number * CHUNK_RECORD_BYTES + 4);
  }

  storedBytes(number: number): number {
    return this.records.readUInt32LE(number * CHUNK_RECORD_BYTES + 16);
  }

  /** Undefined when the record names a codec that does not exist. */
  codec(number: number): ChunkCodec | undefined {
    return CHUNK_CODECS[this.records.readUInt8(number * CHUNK_RECORD_BYTES + 20)];
  }

  /** Undefined when the record names a cipher that does not exist. */
  cipher(number: number): Cipher | undefined {
    return CIPHERS[this.records.readUInt8(number * CHUNK_RECORD_BYTES + 21)];
  }

  /** Flags: zero in everything this version writes. */
  reserved(number: number): number {
    return this.records.readUInt16LE(number * CHUNK_RECORD_BYTES + 22);
  }

  facts(number: number): ChunkFacts {
    const at = number * CHUNK_RECORD_BYTES;
    const hash = {
      a: this.records.readUInt32LE(at + 24),
      b: this.records.readUInt32LE(at + 28),
      c: this.records.readUInt32LE(at + 32),
      d: this.records.readUInt32LE(at + 36),
    };
    const codec = this.codec(number) ?? 'none';
    const cipher = this.cipher(number) ?? 'none';
    return { codec, cipher, rawBytes: this.rawBytes(number), storedBytes: this.storedBytes(number), hash };
  }

  private has(number: number, hash: HashWords, rawBytes: number): boolean {
    const at = number * CHUNK_RECORD_BYTES;
    return (
      this.records.readUInt32LE(at + 24) === hash.a &&
      this.records.readUInt32LE(at + 28) === hash.b &&
      this.records.readUInt32LE(at + 32) === hash.c &&
      this.records.readUInt32LE(at + 36) === hash.d &&
      this.records.readUInt32LE(at + 4) === rawBytes
    );
  }

  private remember(number: number): void {
    if (this.slots.length < 2 * this.used) this.rehash();
    else this.insert(number);
  }

  private rehash(): void {
    let length = 256;
    while (length < 4 * this.used) length *= 2;
    this.slots = new Uint32Array(length);
    for (let number = 0; number < this.used; number++) this.insert(number);
  }

  private insert(number: number): void {
    const mask = this.slots.length - 1;
    let slot = this.records.readUInt32LE(number * CHUNK_RECORD_BYTES + 24) & mask;
    while (this.slots[slot] !== 0) slot = (slot + 1) & mask;
    this.slots[slot] = number + 1;
  }
}

function grown(records: Buffer): Buffer {
  const larger = Buffer.alloc(Math.max(256 * CHUNK_RECORD_BYTES, records.length * 2));
  records.copy(larger);
  return larger;
}
