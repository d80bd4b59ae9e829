// SPDX-License-Identifier: Apache-2.0

/** `127.0.0.1:80` or `[::1]:80`, of the words in which CRIU keeps an address: its bytes as they go over the network. */
export function inetAddress(family: number, words: readonly number[], port: number): string {
  const bytes = Buffer.alloc(16);
  words.slice(0, 4).forEach((word, i) => bytes.writeUInt32LE(word >>> 0, 4 * i));
  if (family !== 10) return `${[...bytes.subarray(0, 4)].join('.')}:${port}`;
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i));
  return `[${shortened(groups)}]:${port}`;
}

/** As RFC 5952 wants it: the longest run of two or more zero groups is `::`, the first of several. */
function shortened(groups: readonly number[]): string {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === 0) length++;
    if (length > best.length) best = { start, length };
  }
  const text = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  if (best.length < 2) return text(groups);
  return `${text(groups.slice(0, best.start))}::${text(groups.slice(best.start + best.length))}`;
}
