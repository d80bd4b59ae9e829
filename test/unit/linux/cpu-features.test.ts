// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  CPU_FEATURES,
  CPU_LEVELS,
  cpuLevel,
  instructionSets,
  levelFeatures,
  parseCpuFlags,
  readCpuFlags,
  withDependants,
} from '../../../src/linux/cpu-features.js';
import { readExtendedCpuid } from '../../../src/linux/cpuid.js';

const NAMES = CPU_FEATURES.map(({ name }) => name);
const byName = (name: string) => CPU_FEATURES.find((one) => one.name === name);

describe('the table of features', () => {
  test('has each name and each bit once, and needs only what it has', () => {
    expect(new Set(NAMES).size).toBe(NAMES.length);
    expect(new Set(CPU_FEATURES.map(({ word, bit }) => `${word} ${bit}`)).size).toBe(NAMES.length);
    for (const { name, bit, needs } of CPU_FEATURES) {
      expect(name).toMatch(/^[a-z0-9_]+$/);
      expect(bit).toBeGreaterThanOrEqual(0);
      expect(bit).toBeLessThan(32);
      for (const need of needs) expect(NAMES).toContain(need);
    }
  });

  test.each([
    ['sse4_2', '1c', 20],
    ['avx2', '7b', 5],
    ['avx512vl', '7b', 31],
    ['vaes', '7c', 9],
    ['amx_tile', '7d', 24],
    ['avx_vnni', '7.1a', 4],
    ['xsavec', 'd.1a', 1],
    ['abm', '80000001c', 5],
  ])('has %s where the manuals have it', (name, word, bit) => {
    expect(byName(name)).toMatchObject({ word, bit });
  });

  test('levels include each other, and what they need', () => {
    const [v2, v3, v4] = CPU_LEVELS.map((level) => levelFeatures(level));
    expect([v2?.length, v3?.length, v4?.length]).toEqual([7, 16, 21]);
    for (const level of CPU_LEVELS) {
      const features = levelFeatures(level);
      for (const name of features) for (const need of byName(name)?.needs ?? ['?']) expect(features).toContain(need);
      expect(cpuLevel(new Set(features))).toBe(level);
      for (const name of features) {
        const less = new Set(features.filter((one) => one !== name));
        expect(CPU_LEVELS.indexOf(cpuLevel(less) as 'x86-64-v2')).toBeLessThan(CPU_LEVELS.indexOf(level));
      }
    }
  });

  test('what needs a hidden feature is hidden with it, whatever the order', () => {
    expect([...withDependants(['avx512bw'])].sort()).toEqual(
      ['avx512_bf16', 'avx512_bitalg', 'avx512_fp16', 'avx512_vbmi2', 'avx512bw', 'avx512vbmi'].sort(),
    );
    expect(withDependants(['xsave'])).toEqual(
      new Set([...withDependants(['xsave']), 'avx', 'avx512_vnni', 'amx_int8']),
    );
    expect(withDependants([])).toEqual(new Set());
    fc.assert(
      fc.property(fc.uniqueArray(fc.constantFrom(...NAMES)), (chosen) => {
        const hidden = withDependants(chosen);
        expect(withDependants(hidden)).toEqual(hidden);
        for (const { name, needs } of CPU_FEATURES) {
          const must = chosen.includes(name) || needs.some((need) => hidden.has(need));
          expect(hidden.has(name)).toBe(must);
        }
      }),
    );
  });
});

describe('the flags of a CPU', () => {
  test('are those of the first processor; hints and what only the kernel uses are no instruction sets', () => {
    const flags = parseCpuFlags('processor : 0\nflags\t\t: fpu sse2  lm erms aes avx\nprocessor : 1\nflags : fma\n');
    expect([...flags]).toEqual(['fpu', 'sse2', 'lm', 'erms', 'aes', 'avx']);
    expect(instructionSets(flags)).toEqual(['aes', 'avx']);
    expect(parseCpuFlags('CPU implementer : 0x41\nFeatures : asimd\n').size).toBe(0);
  });

  test('of this machine are those of the kernel, and what AMD’s leaf shows to programs', () => {
    const kernel = parseCpuFlags(readFileSync('/proc/cpuinfo', 'utf8'));
    const flags = readCpuFlags();
    for (const flag of kernel) expect([...flags]).toContain(flag);
    const extended = readExtendedCpuid();
    // glibc tells from 2.33 on, which is what tests run on; its bit 0 is LAHF, which every 64-bit CPU of today has.
    expect((extended ?? 0) & 1).toBe(1);
    for (const flag of flags) if (!kernel.has(flag)) expect(byName(flag)?.word).toBe('80000001c');
    expect(flags.has('abm')).toBe(kernel.has('abm') || (((extended ?? 0) >>> 5) & 1) === 1);
  });
});
