// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { whatIsWrong } from '../../../../../src/criu/runtime/doctor/canary.js';
import { describeCpu } from '../../../../../src/criu/runtime/doctor/cpu.js';
import { parseCpuFlags } from '../../../../../src/linux/cpu-features.js';
import { parseKernelConfig } from '../../../../../src/criu/runtime/doctor/kernel.js';
import { wasShifted } from '../../../../../src/criu/runtime/doctor/namespaces.js';
import { parseMemAvailable } from '../../../../../src/criu/runtime/doctor/memory.js';

describe('the canary', () => {
  const lines = (count: number): string[] => Array.from({ length: count }, (_, index) => `${index + 1} 1000`);

  it('is content when every number came once, in order, from one PID', () => {
    expect(whatIsWrong([...lines(9), 'end'], 4)).toBeUndefined();
  });

  it.each([
    ['it stopped at the freeze', [...lines(4), 'end'], 'did not continue'],
    ['it never ended', lines(9), 'did not end'],
    ['it has another PID', [...lines(4), '5 17', '6 17', '7 17', 'end'], 'continued wrongly'],
    ['it started again', [...lines(4), ...lines(4), 'end'], 'continued wrongly'],
    ['it left a number out', [...lines(4), '6 1000', '7 1000', '8 1000', 'end'], 'continued wrongly'],
    ['it wrote nothing', [], 'did not end'],
  ])('complains when %s', (_what, output, complaint) => {
    expect(whatIsWrong(output, 4)).toContain(complaint);
  });
});

describe('what the kernel tells', () => {
  it('about its configuration: built in and modules, not what is off', () => {
    const text = 'CONFIG_TIME_NS=y\nCONFIG_UNIX_DIAG=m\n# CONFIG_MEM_SOFT_DIRTY is not set\nCONFIG_HZ=250\n';
    expect([...parseKernelConfig(text)]).toEqual(['TIME_NS', 'UNIX_DIAG']);
  });

  it('about memory', () => {
    expect(parseMemAvailable('MemTotal: 9 kB\nMemAvailable:   2048 kB\n')).toBe(2 * 1024 * 1024);
  });

  it.each([
    ['fpu sse2', 'x86-64'],
    ['pni cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3', 'x86-64-v2'],
    ['pni cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave', 'x86-64-v3'],
    ['avx avx2 bmi1 bmi2 f16c fma abm movbe xsave', 'x86-64'],
  ])('about the CPU: %s is %s', (flags, level) => {
    const cpu = parseCpuFlags(`processor : 0\nflags\t\t: ${flags}\nbugs :\n`);
    expect(describeCpu(cpu)).toMatchObject({ name: 'cpu', status: 'ok' });
    expect(describeCpu(cpu).detail).toMatch(new RegExp(`^${level};`));
  });

  it('about CPUID: whether programs that ask it themselves could be answered otherwise', () => {
    expect(describeCpu(new Set(['cpuid_fault', 'sha_ni'])).detail).toMatch(
      /with sha_ni;.* it can fault on CPUID: .* answered/,
    );
    expect(describeCpu(new Set(['cpuid'])).detail).toMatch(/cannot fault on CPUID: .* see all of it/);
  });
});

describe('clocks', () => {
  const uptime = (hundredths: number): string => {
    const text = String(hundredths).padStart(3, '0');
    return `${text.slice(0, -2)}.${text.slice(-2)} 1.00\n`;
  };
  /** Up to three years of uptime, and up to ten seconds until the container reads it. */
  const moments = [fc.nat(10_000_000_000), fc.nat(1000)] as const;

  it('are seen to be shifted at any uptime, also when both are read in the same 10 ms', () => {
    // The sum in floating point is more than what was read.
    expect(8192.04 + 100_000).toBeGreaterThan(108_192.04);
    fc.assert(
      fc.property(...moments, (before, later) => wasShifted(uptime(before), uptime(before + later + 10_000_000))),
      { examples: [[819_204, 0]] },
    );
  });

  it('are not taken to be shifted by time that passes, or by nothing', () => {
    fc.assert(fc.property(...moments, (before, later) => !wasShifted(uptime(before), uptime(before + later))));
    expect(wasShifted(uptime(1234), '')).toBe(false);
  });
});
