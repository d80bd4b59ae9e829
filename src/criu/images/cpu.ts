// SPDX-License-Identifier: Apache-2.0
import type { Message } from './protobuf.js';

/** The processor of the source machine, as `cpuinfo.img` has it: CRIU writes that only when it is asked to (`--cpu-cap`). */
export interface ImageCpu {
  readonly vendor: 'intel' | 'amd' | 'unknown';
  readonly family: number;
  readonly model: number;
  readonly name: string;
  /** Those that programs choose their code by; in the kernel's words. */
  readonly features: readonly string[];
}

const VENDORS: readonly ImageCpu['vendor'][] = ['unknown', 'intel', 'amd'];

/** Bits of the words of `capability`: which leaf of CPUID a word is, CRIU took over from the kernel. */
const FEATURES: readonly (readonly [word: number, bit: number, name: string])[] = [
  [0, 25, 'sse'],
  [0, 26, 'sse2'],
  [4, 0, 'sse3'],
  [4, 9, 'ssse3'],
  [4, 19, 'sse4_1'],
  [4, 20, 'sse4_2'],
  [4, 1, 'pclmulqdq'],
  [4, 12, 'fma'],
  [4, 22, 'movbe'],
  [4, 23, 'popcnt'],
  [4, 25, 'aes'],
  [4, 28, 'avx'],
  [4, 29, 'f16c'],
  [4, 30, 'rdrand'],
  [9, 3, 'bmi1'],
  [9, 5, 'avx2'],
  [9, 8, 'bmi2'],
  [9, 16, 'avx512f'],
  [9, 17, 'avx512dq'],
  [9, 18, 'rdseed'],
  [9, 19, 'adx'],
  [9, 21, 'avx512ifma'],
  [9, 28, 'avx512cd'],
  [9, 29, 'sha_ni'],
  [9, 30, 'avx512bw'],
  [9, 31, 'avx512vl'],
  [11, 1, 'avx512vbmi'],
  [11, 8, 'gfni'],
  [11, 9, 'vaes'],
  [11, 10, 'vpclmulqdq'],
  [11, 11, 'avx512_vnni'],
];

/** The one entry of `cpuinfo.img`; undefined on another architecture. */
export function readCpu(entry: Message | undefined): ImageCpu | undefined {
  const [x86] = entry?.messages(1) ?? [];
  if (x86 === undefined) return undefined;
  const words = x86.counts(6);
  return {
    vendor: VENDORS[x86.count(1) ?? 0] ?? 'unknown',
    family: x86.count(2) ?? 0,
    model: x86.count(3) ?? 0,
    name: (x86.text(7) ?? '').trim(),
    features: FEATURES.filter(([word, bit]) => (((words[word] ?? 0) >>> bit) & 1) === 1).map(([, , name]) => name),
  };
}

/** Parts of the processor's state by their bits in XSTATE_BV. Several bits of one feature have one name. */
const STATES: Readonly<Record<number, string>> = {
  0: 'x87',
  1: 'sse',
  2: 'avx',
  3: 'mpx',
  4: 'mpx',
  5: 'avx512',
  6: 'avx512',
  7: 'avx512',
  9: 'pku',
  17: 'amx',
  18: 'amx',
};

/** Which registers a thread had something in: without them no processor can continue it. `core` is its `core-TID.img`. */
export function readRegisters(core: Message | undefined): string[] {
  const inUse = core?.message(2)?.message(3)?.message(13)?.big(1) ?? 0n;
  const names = Object.entries(STATES).filter(([bit]) => ((inUse >> BigInt(bit)) & 1n) === 1n);
  return [...new Set(names.map(([, name]) => name))];
}
