// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { whatIsWrong } from '../../../../../src/criu/runtime/doctor/canary.js';
import { describeCpu } from '../../../../../src/criu/runtime/doctor/cpu.js';
import { parseCpuFlags } from '../../../../../src/linux/cpu-features.js';
import { parseKernelConfig } from '../../../../../src/criu/runtime/doctor/kernel.js';
import { wasShifted } from '../../../../../src/criu/runtime/doctor/namespaces.js';
import { makeDirectory } from '../../../linux/support.js';
import { groupRoom, parseMemAvailable } from '../../../../../src/criu/runtime/doctor/memory.js';

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

describe('the room in control groups', () => {
  /** A mount of control groups: their folders, and what the files in them say. */
  function mount(groups: Readonly<Record<string, Readonly<Record<string, string | number>>>>): string {
    const folder = makeDirectory();
    for (const [path, files] of Object.entries(groups)) {
      mkdirSync(join(folder, path), { recursive: true });
      for (const [name, text] of Object.entries(files))
        writeFileSync(join(folder, path, `memory.${name}`), `${text}\n`);
    }
    return folder;
  }

  it('is not taken up by file pages that the kernel can drop', async () => {
    const stat = 'anon 100\nfile 800\ninactive_anon 50\ninactive_file 700\nactive_file 100';
    expect(await groupRoom('0::/\n', mount({ '': { max: 1000, current: 950, stat } }))).toBe(750);
    expect(await groupRoom('0::/\n', mount({ '': { max: 1000, current: 950 } }))).toBe(50);
  });

  it('is never less than nothing, nor more than the limit', async () => {
    expect(await groupRoom('0::/\n', mount({ '': { max: 1000, current: 1100, stat: 'inactive_file 0' } }))).toBe(0);
    expect(await groupRoom('0::/\n', mount({ '': { max: 1000, current: 10, stat: 'inactive_file 99' } }))).toBe(1000);
  });

  it('is what the narrowest group leaves, ours or one above it', async () => {
    const seen = mount({
      'a/b/c': { max: 'max', current: 10 },
      'a/b': { max: 500, current: 100 },
      a: { max: 300, current: 200 },
      'a/other': { max: 5, current: 1 },
    });
    expect(await groupRoom('0::/a/b/c\n', seen)).toBe(100);
    expect(await groupRoom('0::/a/b/c\n', mount({ 'a/b/c': { max: 'max', current: 10 } }))).toBeUndefined();
    expect(await groupRoom('', mount({}))).toBeUndefined();
  });

  it('is not that of a group that only looks as if it were above', async () => {
    expect(await groupRoom('0::/../other\n', mount({ '': { max: 5, current: 1 } }))).toBeUndefined();
  });

  it.each([
    ['where the machine’s path can be seen', 'memory/docker/x'],
    ['where only our own group is mounted', 'memory'],
  ])('is found in the older hierarchy too, %s', async (_, path) => {
    const stat = 'cache 9\ninactive_file 1\nhierarchical_memory_limit 1000\ntotal_inactive_file 400';
    const seen = mount({ [path]: { limit_in_bytes: 1000, usage_in_bytes: 900, stat } });
    expect(await groupRoom('4:cpu,memory:/docker/x\n1:name=systemd:/y\n0::/z\n', seen)).toBe(500);
  });
});
