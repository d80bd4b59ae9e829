// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ageText, plain, sizeText, table } from '../../../src/cli/text.js';

describe('text for people', () => {
  test.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [1048575, '1.0 MiB'],
    [20 << 20, '20.0 MiB'],
    [3 * 2 ** 30, '3.0 GiB'],
    [5000 * 2 ** 40, '5000.0 TiB'],
  ])('%d bytes are %s', (bytes, expected) => {
    expect(sizeText(bytes)).toBe(expected);
  });

  test.each([
    [0, '0 s'],
    [-5000, '0 s'],
    [59_999, '59 s'],
    [60_000, '1 min'],
    [3_600_000, '1 h'],
    [47 * 3_600_000, '47 h'],
    [48 * 3_600_000, '2 d'],
  ])('%d ms ago is %s', (ms, expected) => {
    const now = Date.parse('2026-01-02T03:04:05.678Z');
    expect(ageText('2026-01-02T03:04:05.678Z', now + ms)).toBe(expected);
  });

  test('columns are aligned, whatever stands in them', () => {
    expect(
      table(
        [
          ['1', 'a', 'x'],
          ['100', 'bcd', ''],
        ],
        ['right', 'left', 'right'],
        '  ',
      ),
    ).toBe('    1  a    x\n  100  bcd\n');
    expect(table([], ['left'])).toBe('');
  });

  test('names from storage cannot steer a terminal', () => {
    expect(plain('a\u001b[31m\nb\u202e')).toBe('a\\x1b[31m\\x0ab\\x202e');
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(plain(text)).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
      }),
    );
  });
});
