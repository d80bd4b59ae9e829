// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { FastFreezeError } from '../../../src/base/errors.js';
import {
  type CpuBaseline,
  type CpuRecord,
  MASK_NAMES,
  chooseCpu,
  continuedCpu,
  hiddenFeatures,
  parseCpuBaseline,
  parseCpuMask,
  refuseLesserCpu,
} from '../../../src/container/cpu-baseline.js';
import { levelFeatures } from '../../../src/linux/cpu-features.js';

const V2 = levelFeatures('x86-64-v2');
const V3 = levelFeatures('x86-64-v3');
const HOST: CpuBaseline = { kind: 'host' };
const level = (name: 'x86-64-v2' | 'x86-64-v3' | 'x86-64-v4'): CpuBaseline => ({ kind: 'level', level: name });
const BASE = ['fpu', 'sse', 'sse2', 'lm', 'constant_tsc'];
const HASWELL = new Set([...BASE, ...V3, 'aes', 'erms', 'xsaveopt', 'rdrand']);

function thrown(action: () => unknown): FastFreezeError {
  try {
    action();
  } catch (error) {
    if (error instanceof FastFreezeError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ff-cpu-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

describe('what the user asks for', () => {
  test.each([
    ['host', { kind: 'host' }],
    ['x86-64-v4', { kind: 'level', level: 'x86-64-v4' }],
    ['fleet:a b', { kind: 'fleet', path: 'a b' }],
    ['x86-64-v1', undefined],
    ['fleet:', undefined],
    ['Host', undefined],
    ['', undefined],
  ])('%j is %j', (text, baseline) => {
    expect(parseCpuBaseline(text)).toEqual(baseline);
  });

  test('a mask is a list of names; a word that is none is named', () => {
    expect(parseCpuMask('')).toEqual([]);
    expect(parseCpuMask(' avx512f , hle,,erms')).toEqual(['avx512f', 'hle', 'erms']);
    for (const name of MASK_NAMES) expect(parseCpuMask(name)).toEqual([name]);
    for (const wrong of ['avx9', 'sse2', 'help', 'xsavearea=832', 'AVX2', '00000007_0_b_16']) {
      const error = thrown(() => parseCpuMask(`aes,${wrong}`));
      expect(error.code).toBe('usage');
      expect(error.message).toContain(`there is no feature ${wrong} that`);
      expect(error.hint).toContain('=help');
    }
  });
});

describe('what an application may use', () => {
  test('is by default all that is here: instructions, not hints nor what the kernel uses', () => {
    const record = chooseCpu({ baseline: HOST, masked: [] }, HASWELL);
    expect(record).toMatchObject({ baseline: 'host', masked: [] });
    expect([...record.features].sort()).toEqual([...V3, 'aes', 'xsaveopt', 'rdrand'].sort());
    expect(hiddenFeatures(record)).toEqual(new Set());
  });

  test('is a level, whatever else is here; the rest is hidden, here or not', () => {
    const record = chooseCpu({ baseline: level('x86-64-v3'), masked: [] }, HASWELL);
    expect([...record.features].sort()).toEqual([...V3].sort());
    const hidden = hiddenFeatures(record);
    for (const name of ['aes', 'avx512f', 'amx_tile', 'xsavec', 'sha_ni', 'fma4', 'rtm'])
      expect([...hidden]).toContain(name);
    for (const name of [...V3, 'erms', 'fsrm', 'hle']) expect([...hidden]).not.toContain(name);
  });

  test('has XSAVE in it where that is here: glibc uses it whatever it is told', () => {
    const record = chooseCpu({ baseline: level('x86-64-v2'), masked: ['xsave'] }, HASWELL);
    expect([...record.features].sort()).toEqual([...V2, 'xsave'].sort());
    expect(hiddenFeatures(record).has('avx')).toBe(true);
    expect(hiddenFeatures(record).has('xsave')).toBe(false);
    const old = chooseCpu({ baseline: level('x86-64-v2'), masked: [] }, new Set([...BASE, ...V2]));
    expect([...old.features].sort()).toEqual([...V2].sort());
    expect(hiddenFeatures(old).has('xsave')).toBe(true);
  });

  test('is less by a mask, with all that needs what is masked', () => {
    const record = chooseCpu({ baseline: HOST, masked: ['avx'] }, HASWELL);
    expect(record.masked).toEqual(['avx']);
    for (const name of ['avx', 'avx2', 'fma', 'f16c']) expect(record.features).not.toContain(name);
    expect(record.features).toContain('aes');
    expect(hiddenFeatures(record).has('avx512f')).toBe(true);
    expect(hiddenFeatures(record).has('aes')).toBe(false);
  });

  test('is refused where this machine does not have it, with what is missing and what there is', () => {
    const error = thrown(() => chooseCpu({ baseline: level('x86-64-v4'), masked: [] }, HASWELL));
    expect(error.code).toBe('host');
    expect(error.message).toBe(
      'cannot start with --cpu-baseline x86-64-v4: the CPU of this machine lacks avx512f avx512dq avx512cd avx512bw avx512vl',
    );
    expect(error.hint).toMatch(/reaches x86-64-v3; choose that/);
  });
});

describe('a fleet', () => {
  const fleet = (text: string): CpuBaseline => {
    const path = join(directory, 'fleet');
    writeFileSync(path, text);
    return { kind: 'fleet', path };
  };
  const line = (flags: Iterable<string>): string => `flags\t\t: ${[...flags].join(' ')}\n`;

  test('is what all machines of the file have, whether whole /proc/cpuinfo or lines of it', () => {
    const other = [...BASE, ...V3, 'aes', 'avx512f', 'sha_ni'];
    const text = `processor\t: 0\n${line(HASWELL)}bugs\t\t: x\n\n${line(other)}${line(HASWELL)}`;
    const record = chooseCpu({ baseline: fleet(text), masked: [] }, HASWELL);
    expect(record.baseline).toBe('fleet');
    expect([...record.features].sort()).toEqual([...V3, 'aes'].sort());
    expect(hiddenFeatures(record).has('rdrand')).toBe(true);
    expect(hiddenFeatures(record).has('aes')).toBe(false);
  });

  test('that this machine is not of is refused', () => {
    const error = thrown(() => chooseCpu({ baseline: fleet(line([...BASE, ...V3, 'fma4'])), masked: [] }, HASWELL));
    expect(error.code).toBe('host');
    expect(error.message).toMatch(/lacks fma4$/);
    expect(error.hint).toMatch(/none of the fleet/);
  });

  test.each([
    ['an empty file', '', /no line that begins with "flags"/],
    ['another file', 'root:x:0:0\0\n', /no line that begins with "flags"/],
    ['another architecture', 'Features : asimd\n', /no line that begins/],
    ['a line that was cut short', `${line(HASWELL)}flags : fpu sse ss\n`, /line 2 .*cut short/],
    ['an empty line of flags', 'flags :\n', /line 1 /],
  ])('of %s is refused', (_what, text, reason) => {
    const error = thrown(() => chooseCpu({ baseline: fleet(text), masked: [] }, HASWELL));
    expect(error.code).toBe('usage');
    expect(error.message).toMatch(reason);
    expect(error.hint).toContain('grep -m1 ^flags /proc/cpuinfo');
  });

  test('of a file that is not there is refused', () => {
    const error = thrown(() =>
      chooseCpu({ baseline: { kind: 'fleet', path: join(directory, 'none') }, masked: [] }, HASWELL),
    );
    expect([error.code, error.reason]).toEqual(['usage', 'there is no such file']);
    expect(thrown(() => chooseCpu({ baseline: { kind: 'fleet', path: directory }, masked: [] }, HASWELL)).code).toBe(
      'usage',
    );
  });
});

describe('a restored application', () => {
  const record: CpuRecord = { baseline: 'host', masked: ['aes'], features: ['pni', 'avx'] };

  test('may use what it could, and, where nothing limits it, what is here', () => {
    expect(continuedCpu(record, HASWELL).features).toEqual(
      expect.arrayContaining(['pni', 'avx', 'avx2', 'rdrand', 'xsaveopt']),
    );
    expect(continuedCpu(record, HASWELL).features).not.toContain('aes');
    expect(continuedCpu(record, new Set(['pni'])).features).toEqual(['pni', 'avx']);
    const limited = { ...record, baseline: 'x86-64-v2' };
    expect(continuedCpu(limited, HASWELL)).toEqual(limited);
  });

  test('is refused where something of it is missing', () => {
    expect(() => refuseLesserCpu(record, HASWELL)).not.toThrow();
    const error = thrown(() =>
      refuseLesserCpu({ baseline: 'x86-64-v4', masked: [], features: ['avx2', 'avx512f', 'avx512bw'] }, HASWELL),
    );
    expect(error.code).toBe('host');
    expect(error.message).toBe(
      'cannot restore the application: the CPU of this machine lacks what it may use (started with --cpu-baseline x86-64-v4): avx512f avx512bw',
    );
    expect(error.hint).toMatch(/a machine that has them; or .*--no-restore --cpu-baseline x86-64-v3/);
    expect(thrown(() => refuseLesserCpu(record, new Set(BASE))).hint).toContain('fleet:FILE');
  });
});
