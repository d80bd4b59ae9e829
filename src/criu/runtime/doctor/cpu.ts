// SPDX-License-Identifier: Apache-2.0
import { readFile } from 'node:fs/promises';
import type { Row } from './row.js';
import { ok } from './row.js';

/** The psABI's levels; each includes those before it. */
const LEVELS: readonly (readonly [string, readonly string[]])[] = [
  ['x86-64-v2', ['cx16', 'lahf_lm', 'popcnt', 'sse4_1', 'sse4_2', 'ssse3']],
  ['x86-64-v3', ['avx', 'avx2', 'bmi1', 'bmi2', 'f16c', 'fma', 'abm', 'movbe', 'xsave']],
  ['x86-64-v4', ['avx512f', 'avx512bw', 'avx512cd', 'avx512dq', 'avx512vl']],
];

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
export async function examineCpu(): Promise<Row> {
  const flags = parseCpuFlags(await readFile('/proc/cpuinfo', 'utf8'));
  const notable = NOTABLE.filter((flag) => flags.has(flag));
  const also = notable.length === 0 ? '' : ` with ${notable.join(', ')}`;
  return ok('cpu', `${cpuLevel(flags)}${also}; a job thaws only where the CPU has all that it uses`);
}

export function parseCpuFlags(cpuinfo: string): Set<string> {
  return new Set(/^flags\s*:\s*(.*)$/m.exec(cpuinfo)?.[1]?.split(' ') ?? []);
}

export function cpuLevel(flags: ReadonlySet<string>): string {
  let reached = 'x86-64';
  for (const [level, needed] of LEVELS) {
    if (!needed.every((flag) => flags.has(flag))) break;
    reached = level;
  }
  return reached;
}
