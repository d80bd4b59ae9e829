// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { readExtendedCpuid } from './cpuid.js';

/** Where CPUID says it: a leaf (with subleaf) and a register of its answer. */
export type CpuidWord = '1c' | '7b' | '7c' | '7d' | '7.1a' | 'd.1a' | '80000001c' | '80000001d' | '80000008b';

export interface CpuFeature {
  /** As /proc/cpuinfo has it. */
  readonly name: string;
  readonly word: CpuidWord;
  readonly bit: number;
  /** Without these it is of no use, so that hiding one of them hides it as well. */
  readonly needs: readonly string[];
  /** It makes something faster that every CPU has: a program that has seen it runs without it all the same. */
  readonly hint: boolean;
}

export const CPU_LEVELS = ['x86-64-v2', 'x86-64-v3', 'x86-64-v4'] as const;
export type CpuLevel = (typeof CPU_LEVELS)[number];

/** What each of the psABI's levels adds to the one before it. */
const ADDED: Readonly<Record<CpuLevel, readonly string[]>> = {
  'x86-64-v2': ['pni', 'ssse3', 'cx16', 'sse4_1', 'sse4_2', 'popcnt', 'lahf_lm'],
  'x86-64-v3': ['fma', 'movbe', 'xsave', 'avx', 'f16c', 'bmi1', 'avx2', 'bmi2', 'abm'],
  'x86-64-v4': ['avx512f', 'avx512dq', 'avx512cd', 'avx512bw', 'avx512vl'],
};

/**
 * Instructions that user code can execute where the CPU has them, in the kernel's words. Left out is what every x86-64 has,
 * what only the kernel can use, and prefetches, which do nothing where they are unknown.
 */
export const CPU_FEATURES: readonly CpuFeature[] = [
  ...word('1c', 'pni:0 pclmulqdq:1 ssse3:9<pni fma:12<avx cx16:13 sse4_1:19<ssse3 sse4_2:20<sse4_1 movbe:22 popcnt:23'),
  ...word('1c', 'aes:25 xsave:26 avx:28<xsave<sse4_2 f16c:29<avx rdrand:30'),
  ...word(
    '7b',
    'fsgsbase:0 bmi1:3 avx2:5<avx bmi2:8 rtm:11 avx512f:16<avx2<fma rdseed:18 adx:19 clflushopt:23 clwb:24',
  ),
  ...word('7b', 'sha_ni:29 avx512dq:17<avx512f avx512ifma:21<avx512f avx512pf:26<avx512f avx512er:27<avx512f'),
  ...word('7b', 'avx512cd:28<avx512f avx512bw:30<avx512f avx512vl:31<avx512f'),
  ...word('7c', 'avx512vbmi:1<avx512bw waitpkg:5 avx512_vbmi2:6<avx512bw gfni:8 vaes:9<avx<aes'),
  ...word('7c', 'vpclmulqdq:10<avx<pclmulqdq avx512_vnni:11<avx512f avx512_bitalg:12<avx512bw'),
  ...word('7c', 'avx512_vpopcntdq:14<avx512f rdpid:22 movdiri:27 movdir64b:28'),
  ...word(
    '7d',
    'avx512_4vnniw:2<avx512f avx512_4fmaps:3<avx512f avx512_vp2intersect:8<avx512f serialize:14 tsxldtrk:16',
  ),
  ...word('7d', 'amx_bf16:22<amx_tile avx512_fp16:23<avx512bw amx_tile:24<xsave amx_int8:25<amx_tile'),
  ...word('7.1a', 'avx_vnni:4<avx2 avx512_bf16:5<avx512bw'),
  ...word('d.1a', 'xsaveopt:0<xsave xsavec:1<xsave xgetbv1:2<xsave'),
  ...word('80000001c', 'lahf_lm:0 abm:5 sse4a:6<pni xop:11<avx lwp:15<xsave fma4:16<avx tbm:21 mwaitx:29'),
  ...word('80000001d', 'rdtscp:27 3dnowext:30<3dnow 3dnow:31'),
  ...word('80000008b', 'clzero:0 rdpru:4'),
  ...word('7b', 'hle:4 erms:9', true),
  ...word('7d', 'fsrm:4', true),
];

/**
 * The flags of this machine's CPU. The kernel's word counts, since most of what programs use it has to allow. But some
 * hypervisors keep LZCNT and SSE4A from the kernel and not from programs: what AMD's extended leaf names is asked for as well,
 * else no such machine would reach x86-64-v3, which glibc takes it for.
 */
export function readCpuFlags(): Set<string> {
  const flags = parseCpuFlags(readFileSync('/proc/cpuinfo', 'utf8'));
  const extended = flags.size === 0 ? 0 : (readExtendedCpuid() ?? 0);
  for (const { name, word: where, bit, needs } of CPU_FEATURES) {
    const there = where === '80000001c' && ((extended >>> bit) & 1) === 1;
    if (there && needs.every((need) => flags.has(need))) flags.add(name);
  }
  return flags;
}

export function parseCpuFlags(cpuinfo: string): Set<string> {
  const words = /^flags\s*:\s*(.*)$/m.exec(cpuinfo)?.[1]?.split(/\s+/) ?? [];
  return new Set(words.filter((one) => one !== ''));
}

/** The highest level that a CPU with these flags reaches; `x86-64` when it is none. */
export function cpuLevel(flags: ReadonlySet<string>): CpuLevel | 'x86-64' {
  return CPU_LEVELS.findLast((level) => levelFeatures(level).every((name) => flags.has(name))) ?? 'x86-64';
}

/** All that a level promises beyond x86-64. */
export function levelFeatures(level: CpuLevel): string[] {
  return CPU_LEVELS.slice(0, CPU_LEVELS.indexOf(level) + 1).flatMap((one) => ADDED[one]);
}

/** Those of the flags that stand for instructions a program may execute, in the table's order. */
export function instructionSets(flags: ReadonlySet<string>): string[] {
  return CPU_FEATURES.filter(({ name, hint }) => !hint && flags.has(name)).map(({ name }) => name);
}

/** The features, and whatever is of no use without them. */
export function withDependants(names: Iterable<string>): Set<string> {
  const all = new Set(names);
  for (let before = -1; before !== all.size;) {
    before = all.size;
    for (const { name, needs } of CPU_FEATURES) if (needs.some((need) => all.has(need))) all.add(name);
  }
  return all;
}

/** `name:bit<need<need`, separated by spaces. */
function word(where: CpuidWord, rows: string, hint = false): CpuFeature[] {
  return rows.split(' ').map((row) => {
    const [head = '', ...needs] = row.split('<');
    const [name = '', bit = ''] = head.split(':');
    return { name, word: where, bit: Number(bit), needs, hint };
  });
}
