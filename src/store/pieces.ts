// SPDX-License-Identifier: Apache-2.0

/** Bytes that lie in several places of memory, and are sent one after the other. */
export type Pieces = readonly Uint8Array[];

export function sizeOf(pieces: Pieces): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0);
}

/** All but the first `skip` bytes; nothing is copied. */
export function after(pieces: Pieces, skip: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let left = skip;
  for (const piece of pieces) {
    if (left < piece.length) rest.push(piece.subarray(left));
    left = Math.max(0, left - piece.length);
  }
  return rest;
}
