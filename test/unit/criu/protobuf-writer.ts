// SPDX-License-Identifier: Apache-2.0

/** What our reader should read, written by the other half of the definition: field by field, in any order. */
export type WireField =
  | { readonly number: number; readonly varint: bigint }
  | { readonly number: number; readonly fixed64: bigint }
  | { readonly number: number; readonly fixed32: number }
  | { readonly number: number; readonly bytes: Uint8Array };

export function encodeMessage(fields: readonly WireField[]): Buffer {
  return Buffer.concat(fields.map(encodeField));
}

/** Shorthand: numbers are varints, texts and buffers are bytes, lists repeat, `undefined` is left out. */
export function message(fields: Readonly<Record<number, WireValue | readonly WireValue[] | undefined>>): Buffer {
  const wire: WireField[] = [];
  for (const [key, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? (value as WireValue[]) : [value as WireValue | undefined]) {
      const number = Number(key);
      if (typeof one === 'number' || typeof one === 'bigint') wire.push({ number, varint: BigInt(one) });
      else if (one !== undefined) wire.push({ number, bytes: Buffer.from(one as Uint8Array) });
    }
  }
  return encodeMessage(wire);
}

export type WireValue = number | bigint | string | Uint8Array;

/** One of CRIU's image files. */
export function imageFile(magic: number, messages: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0x54564319, 0);
  head.writeUInt32LE(magic, 4);
  const parts = messages.flatMap((one) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(one.length);
    return [length, one];
  });
  return Buffer.concat([head, ...parts]);
}

export function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  while (rest >= 0x80n) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

function encodeField(field: WireField): Buffer {
  const tag = (type: number): Buffer => varint(BigInt(field.number * 8 + type));
  if ('varint' in field) return Buffer.concat([tag(0), varint(field.varint)]);
  if ('bytes' in field) return Buffer.concat([tag(2), varint(BigInt(field.bytes.length)), field.bytes]);
  if ('fixed64' in field) {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(field.fixed64);
    return Buffer.concat([tag(1), bytes]);
  }
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(field.fixed32);
  return Buffer.concat([tag(5), bytes]);
}
