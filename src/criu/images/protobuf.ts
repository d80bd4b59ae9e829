// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';

type Value = bigint | Uint8Array;

/**
 * One protobuf message, as far as reading CRIU's images needs it: fields by number, in the order of their coming.
 * Fields that nobody asks for are skipped, so that images of newer CRIUs are read as well. Bytes that are no message
 * are an `image` error.
 */
export class Message {
  private readonly fields = new Map<number, Value[]>();

  constructor(
    bytes: Uint8Array,
    private readonly subject: string,
  ) {
    const reader = new Reader(bytes, subject);
    while (!reader.atEnd()) {
      const tag = reader.varint();
      const number = Number(tag >> 3n);
      if (number === 0 || number > MAX_FIELD) throw wrong(subject, `it has a field of number ${number}`);
      const value = reader.value(Number(tag & 7n));
      const values = this.fields.get(number);
      if (values === undefined) this.fields.set(number, [value]);
      else values.push(value);
    }
  }

  /** An unsigned number, exact: addresses need all 64 bits. Of several the last counts, as protobuf has it. */
  big(number: number): bigint | undefined {
    const value = this.fields.get(number)?.at(-1);
    if (value === undefined || typeof value === 'bigint') return value;
    throw wrong(this.subject, `its field ${number} is no number`);
  }

  /** The same where it is small enough to be exact as a number. */
  count(number: number): number | undefined {
    const value = this.big(number);
    return value === undefined ? undefined : this.small(value, number);
  }

  /** A repeated number, packed or not. */
  counts(number: number): number[] {
    return (this.fields.get(number) ?? []).flatMap((value) => {
      if (typeof value === 'bigint') return [this.small(value, number)];
      const reader = new Reader(value, this.subject);
      const list: number[] = [];
      while (!reader.atEnd()) list.push(this.small(reader.varint(), number));
      return list;
    });
  }

  bytes(number: number): Uint8Array | undefined {
    const value = this.fields.get(number)?.at(-1);
    if (value === undefined || typeof value !== 'bigint') return value;
    throw wrong(this.subject, `its field ${number} is no sequence of bytes`);
  }

  /** Names of files may be any bytes: what is not UTF-8 is shown as replacement characters. */
  text(number: number): string | undefined {
    const bytes = this.bytes(number);
    return bytes === undefined ? undefined : Buffer.from(bytes).toString('utf8');
  }

  message(number: number): Message | undefined {
    const bytes = this.bytes(number);
    return bytes === undefined ? undefined : new Message(bytes, this.subject);
  }

  messages(number: number): Message[] {
    return (this.fields.get(number) ?? []).map((value) => {
      if (typeof value === 'bigint') throw wrong(this.subject, `its field ${number} is no message`);
      return new Message(value, this.subject);
    });
  }

  private small(value: bigint, number: number): number {
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    throw wrong(this.subject, `its field ${number} is too large`);
  }
}

/**
 * The same message with other values: of each field that is a number or a sequence of bytes, what `replace` makes of it.
 * All else stays byte for byte. Throws `image` for bytes that are no message.
 */
export function rewriteMessage(
  bytes: Uint8Array,
  subject: string,
  replace: (field: number, value: Value) => Value,
): Buffer {
  const reader = new Reader(bytes, subject);
  const parts: Uint8Array[] = [];
  while (!reader.atEnd()) {
    const from = reader.position;
    const tag = reader.varint();
    const wireType = Number(tag & 7n);
    const value = reader.value(wireType);
    const other = wireType === 0 || wireType === 2 ? replace(Number(tag >> 3n), value) : value;
    if (other === value) parts.push(bytes.subarray(from, reader.position));
    else if (typeof other === 'bigint') parts.push(encodeVarint(tag), encodeVarint(other));
    else parts.push(encodeVarint(tag), encodeVarint(BigInt(other.length)), other);
  }
  return Buffer.concat(parts);
}

/** The message with a number at its end: of a field that is there twice the last counts. */
export function appendCount(bytes: Uint8Array, field: number, value: number): Buffer {
  return Buffer.concat([bytes, encodeVarint(BigInt(field * 8)), encodeVarint(BigInt(value))]);
}

function encodeVarint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>= 7n) {
    if (rest < 0x80n) return Uint8Array.from([...bytes, Number(rest)]);
    bytes.push(Number(rest & 0x7fn) | 0x80);
  }
}

const MAX_FIELD = 2 ** 29 - 1;
const MAX_VARINT_BYTES = 10;

class Reader {
  private at = 0;

  constructor(
    private readonly all: Uint8Array,
    private readonly subject: string,
  ) {}

  get position(): number {
    return this.at;
  }

  atEnd(): boolean {
    return this.at === this.all.length;
  }

  varint(): bigint {
    let low = 0;
    let value = 0n;
    for (let i = 0; i < MAX_VARINT_BYTES; i++) {
      const byte = this.all[this.at++];
      if (byte === undefined) throw wrong(this.subject, 'it is cut short');
      // Most numbers are small, and BigInt is slow.
      if (i < 4) low |= (byte & 0x7f) << (7 * i);
      else value |= BigInt(byte & 0x7f) << BigInt(7 * i);
      if (byte < 0x80) return BigInt.asUintN(64, value | BigInt(low));
    }
    throw wrong(this.subject, 'it has a number of more than 64 bits');
  }

  value(wireType: number): Value {
    if (wireType === 0) return this.varint();
    if (wireType === 1) return Buffer.from(this.take(8)).readBigUInt64LE();
    if (wireType === 5) return BigInt(Buffer.from(this.take(4)).readUInt32LE());
    if (wireType === 2) return this.take(Number(this.varint()));
    throw wrong(this.subject, `it has a field of wire type ${wireType}`);
  }

  private take(length: number): Uint8Array {
    if (length > this.all.length - this.at) throw wrong(this.subject, 'it is cut short');
    this.at += length;
    return this.all.subarray(this.at - length, this.at);
  }
}

function wrong(subject: string, reason: string): FastFreezeError {
  return new FastFreezeError({ code: 'image', op: 'understand', subject, reason });
}
