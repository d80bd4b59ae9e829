// SPDX-License-Identifier: Apache-2.0
import koffi from 'koffi';
import { libc } from './libc.js';

/**
 * What CPUID answers to programs for leaf 0x80000001, register ECX. Undefined where the C library does not tell: only glibc
 * does, from 2.33 on. Node.js cannot execute the instruction.
 */
export function readExtendedCpuid(): number | undefined {
  let features: unknown;
  try {
    features = libc.func('void *__x86_get_cpuid_feature_leaf(uint leaf)')(CPUID_INDEX_80000001);
  } catch {
    return undefined; // There is no such function in this C library.
  }
  // A structure of eight words: EAX, EBX, ECX, EDX as CPUID has them, then as glibc uses them.
  const [, , ecx] = koffi.decode(features, 'uint32', 8) as number[];
  return ecx;
}

/** The third of glibc's public enumeration of leaves (sys/platform/x86.h). */
const CPUID_INDEX_80000001 = 2;
