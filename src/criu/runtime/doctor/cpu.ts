// SPDX-License-Identifier: Apache-2.0
import { cpuLevel, readCpuFlags } from '../../../linux/cpu-features.js';
import type { Row } from './row.js';
import { ok } from './row.js';

/** Beyond the levels: what numerical libraries choose their code by. */
const NOTABLE = [
  'avx512_vnni',
  'avx512_bf16',
  'avx512_fp16',
  'avx_vnni',
  'amx_tile',
  'sha_ni',
  'vaes',
  'pku',
  'user_shstk',
];

/** Never a failure: it tells where an image made here can go. */
export function examineCpu(): Row {
  return describeCpu(readCpuFlags());
}

export function describeCpu(flags: ReadonlySet<string>): Row {
  const notable = NOTABLE.filter((flag) => flags.has(flag));
  const also = notable.length === 0 ? '' : ` with ${notable.join(', ')}`;
  const faulting = flags.has('cpuid_fault')
    ? 'it can fault on CPUID: programs that ask it directly, which --cpu-baseline does not reach, could be answered in its place'
    : 'it cannot fault on CPUID: programs that ask it directly see all of it, whatever --cpu-baseline says';
  return ok('cpu', `${cpuLevel(flags)}${also}; a job thaws only where the CPU has all that it may use; ${faulting}`);
}
