// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { type CpuRecord, MASK_NAMES, chooseCpu } from '../../../src/container/cpu-baseline.js';
import { type CpuSwitches, cpuSwitches } from '../../../src/container/cpu-switches.js';
import { CPU_FEATURES, type CpuLevel, levelFeatures } from '../../../src/linux/cpu-features.js';

const ALL = new Set(CPU_FEATURES.map(({ name }) => name));
const at = (level: CpuLevel): CpuRecord => chooseCpu({ baseline: { kind: 'level', level }, masked: [] }, ALL);
const masked = (...names: string[]): CpuRecord => chooseCpu({ baseline: { kind: 'host' }, masked: names }, ALL);
const switches = (record: CpuRecord, env: Record<string, string> = {}): CpuSwitches =>
  cpuSwitches(record, (name) => env[name]);

function tunables(record: CpuRecord, theirs?: string): Record<string, string[]> {
  const { set } = switches(record, theirs === undefined ? {} : { GLIBC_TUNABLES: theirs });
  return Object.fromEntries(
    (set['GLIBC_TUNABLES'] ?? '').split(':').map((one): [string, string[]] => {
      const [name = '', value = ''] = one.split('=');
      return [name, value.split(',')];
    }),
  );
}

describe('the switches of a CPU baseline', () => {
  test('are none where nothing is hidden', () => {
    expect(switches(masked())).toEqual({ set: {}, kept: [] });
    // A feature that none of them has a word for.
    expect(switches(masked('clzero'))).toEqual({ set: {}, kept: [] });
  });

  test.each([
    ['x86-64-v2', 'Nehalem', 'SSE4_2', 0],
    ['x86-64-v3', 'Haswell', 'AVX2', 2],
    ['x86-64-v4', 'SkylakeX', 'AVX512', 2],
  ] as const)('%s: OpenBLAS %s, MKL %s, Java UseAVX=%d', (level, core, mkl, avx) => {
    const { set, kept } = switches(at(level));
    expect(kept).toEqual([]);
    expect(set).toMatchObject({ OPENBLAS_CORETYPE: core, MKL_ENABLE_INSTRUCTIONS: mkl });
    expect(set['JAVA_TOOL_OPTIONS']).toMatch(new RegExp(`^-XX:\\+IgnoreUnrecognizedVMOptions -XX:UseAVX=${avx} `));
    // Java 8 does not read a value of more than 1023 characters at all.
    expect(set['JAVA_TOOL_OPTIONS']?.length).toBeLessThan(400);
  });

  test('glibc: both generations of names, in both namespaces, and what memory is copied with', () => {
    const v3 = tunables(at('x86-64-v3'));
    expect(Object.keys(v3)).toEqual(['glibc.cpu.hwcaps', 'glibc.tune.hwcaps']);
    expect(v3['glibc.tune.hwcaps']).toEqual(v3['glibc.cpu.hwcaps']);
    expect(v3['glibc.cpu.hwcaps']).toEqual(expect.arrayContaining(['-AVX512F', '-AVX512F_Usable', '-XSAVEC', '-RTM']));
    for (const name of ['-AVX2', '-AVX', '-BMI2', '-AVX_Fast_Unaligned_Load', '-XSAVE', '-ERMS']) {
      expect(v3['glibc.cpu.hwcaps']).not.toContain(name);
    }
    const v2 = tunables(at('x86-64-v2'))['glibc.cpu.hwcaps'] ?? [];
    for (const name of ['AVX', 'AVX_Usable', 'AVX2', 'AVX2_Usable', 'AVX_Fast_Unaligned_Load', 'FMA_Usable', 'LZCNT']) {
      expect(v2).toContain(`-${name}`);
    }
    expect(v2).not.toContain('-SSE4_2');
    expect(tunables(masked('erms'))['glibc.cpu.hwcaps']).toEqual(['-ERMS']);
  });

  test('glibc: the user’s tunables stay, and ours go into the one that counts', () => {
    expect(tunables(masked('rtm'), 'glibc.malloc.check=3')).toEqual({
      'glibc.malloc.check': ['3'],
      'glibc.cpu.hwcaps': ['-RTM'],
      'glibc.tune.hwcaps': ['-RTM'],
    });
    const env = { GLIBC_TUNABLES: 'glibc.cpu.hwcaps=-ERMS:glibc.cpu.hwcaps=-SSSE3:glibc.elision.enable=1' };
    expect(switches(masked('rtm'), env).set['GLIBC_TUNABLES']).toBe(
      'glibc.cpu.hwcaps=-ERMS:glibc.cpu.hwcaps=-SSSE3,-RTM:glibc.elision.enable=1:glibc.tune.hwcaps=-RTM',
    );
  });

  test('OpenSSL: the bits of CPUID, in the vectors of its manual', () => {
    const mask = (...names: string[]): string | undefined => switches(masked(...names)).set['OPENSSL_ia32cap'];
    // The manual's own examples: AES-NI is bit 57 of the first vector, VAES bit 41 of the second, AVX2 bit 5.
    expect(mask('aes')).toBe('~0x200000000000000:~0x20000000000');
    expect(mask('rdseed')).toBe('~0x0:~0x40000');
    expect(mask('avx512_4vnniw')).toBe('~0x0:~0x0:~0x4');
    expect(mask('sse4a')).toBeUndefined();
    expect(mask('xop')).toBe(`~0x${(1n << 43n).toString(16)}:~0x0`);
    const v2 = switches(at('x86-64-v2')).set['OPENSSL_ia32cap']?.split(':') ?? [];
    const bits = (vector: number): bigint => BigInt((v2[vector] ?? '').slice(1));
    for (const [vector, bit] of [
      [0, 60],
      [0, 44],
      [0, 57],
      [1, 5],
      [1, 16],
      [1, 29],
      [2, 32],
      [2, 55],
    ] as const) {
      expect((bits(vector) >> BigInt(bit)) & 1n).toBe(1n);
    }
    // FXSR, without which it would do without SSE; SSSE3 and SSE4.2, which are of the level.
    for (const bit of [24, 25, 26, 41, 52]) expect((bits(0) >> BigInt(bit)) & 1n).toBe(0n);
  });

  test('OpenSSL: any mask has at least two vectors, none of them empty, which old versions would take for 0', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.constantFrom(...MASK_NAMES), { minLength: 1 }), (names) => {
        const mask = switches(masked(...names)).set['OPENSSL_ia32cap'];
        if (mask !== undefined) expect(mask).toMatch(/^~0x[0-9a-f]{1,16}(:~0x[0-9a-f]{1,16}){1,3}$/);
      }),
    );
  });

  test('NumPy: names of dispatched code only, never of what a build may take for granted', () => {
    const disabled = (record: CpuRecord): string[] =>
      (switches(record).set['NPY_DISABLE_CPU_FEATURES'] ?? '').split(' ');
    expect(disabled(at('x86-64-v2'))).toEqual(expect.arrayContaining(['AVX', 'AVX2', 'FMA3', 'X86_V3', 'AVX512_SKX']));
    expect(disabled(at('x86-64-v3'))).toEqual(
      'AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4'.split(' '),
    );
    expect(disabled(at('x86-64-v4'))).toEqual(['AVX512_CLX', 'AVX512_CNL', 'AVX512_ICL', 'AVX512_SPR']);
    const least = disabled(masked('pni'));
    for (const name of ['SSE', 'SSE2', 'SSE3', 'SSSE3', 'SSE41', 'SSE42', 'POPCNT', 'X86_V2']) {
      expect(least).not.toContain(name);
    }
    const { set, kept } = switches(at('x86-64-v3'), { NPY_ENABLE_CPU_FEATURES: 'AVX2' });
    expect(set).not.toHaveProperty('NPY_DISABLE_CPU_FEATURES');
    expect(kept).toEqual(['NPY_ENABLE_CPU_FEATURES']);
  });

  test('OpenBLAS, MKL and Java are never told more than the machine has', () => {
    const haswell = new Set([...levelFeatures('x86-64-v3'), 'aes']);
    const { set } = cpuSwitches(
      chooseCpu({ baseline: { kind: 'host' }, masked: ['avx512f', 'amx_tile'] }, haswell),
      () => undefined,
    );
    expect(set).toMatchObject({ OPENBLAS_CORETYPE: 'Haswell', MKL_ENABLE_INSTRUCTIONS: 'AVX2' });
    expect(set['JAVA_TOOL_OPTIONS']).toBe('-XX:+IgnoreUnrecognizedVMOptions -XX:UseAVX=2');
    expect(switches(masked('sse4_1')).set['JAVA_TOOL_OPTIONS']).toContain('-XX:UseSSE=3');
    expect(switches(masked('pni')).set).toMatchObject({ OPENBLAS_CORETYPE: 'Prescott' });
  });

  test('Java: ours come before the user’s, which win', () => {
    const { set } = switches(masked('aes'), { JAVA_TOOL_OPTIONS: '-Xmx1g -XX:+UseAES' });
    expect(set['JAVA_TOOL_OPTIONS']).toMatch(/ -XX:-UseAES -Xmx1g -XX:\+UseAES$/);
  });

  test('.NET: each of its switches, by the names of 8 to 10', () => {
    const off = (record: CpuRecord): string[] =>
      Object.entries(switches(record).set).flatMap(([name, value]) =>
        name.startsWith('DOTNET_') ? [`${name.slice(7)}=${value}`] : [],
      );
    expect(off(at('x86-64-v2'))).toEqual(expect.arrayContaining(['EnableAVX=0', 'EnableAVX2=0', 'EnableLZCNT=0']));
    expect(off(at('x86-64-v3'))).toEqual(expect.arrayContaining(['EnableAVX512F=0', 'EnableAVX512=0', 'EnableAES=0']));
    for (const name of ['EnableAVX=0', 'EnableAVX2=0', 'EnableBMI1=0'])
      expect(off(at('x86-64-v3'))).not.toContain(name);
    for (const name of ['EnableAVX512=0', 'EnableAVX512F=0']) expect(off(at('x86-64-v4'))).not.toContain(name);
    expect(off(masked('gfni'))).toEqual(['EnableAVX10v1=0', 'EnableGFNI=0']);
  });

  test('what the user has set stays, and is named, unless it is the same', () => {
    const env = {
      OPENSSL_ia32cap: ':0',
      OPENBLAS_CORETYPE: 'Haswell',
      DOTNET_EnableAES: '1',
      MKL_ENABLE_INSTRUCTIONS: 'AVX',
    };
    const { set, kept } = switches(at('x86-64-v3'), env);
    expect(kept).toEqual(['OPENSSL_ia32cap', 'MKL_ENABLE_INSTRUCTIONS', 'DOTNET_EnableAES']);
    for (const name of Object.keys(env)) expect(set).not.toHaveProperty(name);
  });
});
