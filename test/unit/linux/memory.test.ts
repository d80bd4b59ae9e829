// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { cleanMappings, forgetPages, unmapIdleCode } from '../../../src/linux/memory.js';

function residentBytes(): number {
  const found = /^RssFile:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1];
  return Number(found) * 1024;
}

describe('unmapping the executable', () => {
  test('shrinks what is resident, and the program goes on', () => {
    const before = residentBytes();
    unmapIdleCode();
    expect(residentBytes()).toBeLessThan(before - (8 << 20));
    // Code that was unmapped comes back when it is called.
    expect(JSON.parse(JSON.stringify({ a: [1.5, 'x', null] }))).toEqual({ a: [1.5, 'x', null] });
    expect('straße'.toLocaleUpperCase('de')).toBe('STRASSE');
  });

  test('leaves alone what can be written to, what is another file and what has pages of our own', () => {
    const mapping = (range: string, rights: string, file: string, anonymousKb: number, swapKb = 0): string =>
      `${range} ${rights} 00000000 fe:00 123   ${file}\nSize: 8 kB\nAnonymous:  ${anonymousKb} kB\n` +
      `AnonHugePages:  0 kB\nSwap:  ${swapKb} kB\nSwapPss:  0 kB\nVmFlags: rd`;
    const smaps = [
      mapping('00001000-00003000', 'r-xp', '/bin/node', 0),
      mapping('00003000-00005000', 'r--p', '/bin/node', 4),
      mapping('00005000-00007000', 'rw-p', '/bin/node', 0),
      mapping('00007000-00009000', 'r--p', '/bin/node', 0),
      mapping('00009000-0000b000', 'r--p', '/lib/libc.so.6', 0),
      mapping('0000b000-0000d000', 'r--s', '/bin/node', 0),
      mapping('0000d000-0000f000', 'r--p', '/bin/node', 0, 8),
    ].join('\n');
    expect(cleanMappings(smaps, '/bin/node')).toEqual([
      { start: 0x1000n, end: 0x3000n },
      { start: 0x7000n, end: 0x9000n },
    ]);
  });
});

test('forgotten pages are empty and can be used again; what lies beside them stays', () => {
  const buffer = Buffer.allocUnsafeSlow(64 * 1024).fill(7);
  const [front, rear] = [buffer.subarray(0, 16), buffer.subarray(-16)];
  const inner = buffer.subarray(16, -16);
  forgetPages(inner);
  expect(inner.includes(0)).toBe(true);
  expect(front.every((byte) => byte === 7) && rear.every((byte) => byte === 7)).toBe(true);
  inner.fill(9);
  expect(inner.every((byte) => byte === 9)).toBe(true);
});
