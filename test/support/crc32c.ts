// SPDX-License-Identifier: Apache-2.0

/** CRC-32C (Castagnoli), of which Node has none. Continue with what the last call gave; begin with 0. */
export function crc32c(bytes: Uint8Array, before = 0): number {
  let crc = ~before;
  // An index loop: this runs over every byte of every upload.
  for (let i = 0; i < bytes.length; i += 1) crc = (TABLE[(crc ^ (bytes[i] ?? 0)) & 0xff] ?? 0) ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Base64 of the big-endian sum, as Google's services write it. */
export function encodeCrc32c(sum: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(sum);
  return bytes.toString('base64');
}

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = (value & 1) === 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});
