// SPDX-License-Identifier: Apache-2.0
// What an application is shown of the CPU, and where it may then continue.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { withBed, type Bed } from '../support/bed.js';
import { typed } from '../support/document.js';
import { generations } from '../support/image.js';
import { PATH_OF_JOBS } from '../support/place.js';
import { PYTHON, fixture } from '../support/stage.js';

const url = (bed: Bed): string[] => ['--image-url', `file:${bed.path('image')}`];
const CPUINFO = readFileSync('/proc/cpuinfo', 'utf8');
const LOADER = '/lib64/ld-linux-x86-64.so.2';

/** What libcrypto goes by (OPENSSL_INFO_CPU_SETTINGS). */
const OPENSSL =
  'import ctypes; f = ctypes.CDLL("libcrypto.so.3").OPENSSL_info; f.restype = ctypes.c_char_p; print(f(1008).decode())';

/** The file as a CPU without these flags would give it. With something mounted in its /proc a normal user gets no container there. */
function without(flags: RegExp): Record<string, string> {
  const content = CPUINFO.replace(/^(flags\s*:)(.*)$/gm, (_line, head: string, words: string) => {
    const left = words.split(' ').filter((word) => !flags.test(word));
    return `${head}${left.join(' ')}`;
  });
  return { '/proc/cpuinfo': content };
}

interface InspectedCpu {
  readonly baseline: string;
  readonly masked: string[];
  readonly features: string[];
}

async function recorded(bed: Bed): Promise<InspectedCpu> {
  const answer = await (await bed.place()).fastfreeze(['inspect', `file:${bed.path('image')}`, '--json']);
  return (JSON.parse(answer.stdout) as { app: { cpu: InspectedCpu } }).app.cpu;
}

test('with a baseline glibc keeps to it, and the job continues where the CPU has no more', async () => {
  await withBed('root', async (bed) => {
    const command = [PYTHON, fixture('glibc_choice.py'), bed.path('stop')];
    const options = [...url(bed), '--cpu-baseline', 'x86-64-v2'];
    const env = { FF_APP_VIRT_CPUID_MASK: 'popcnt', GLIBC_TUNABLES: 'glibc.malloc.check=0' };
    const first = bed.run(await bed.place(), options, command, { env });
    await first.prints(/glibc: memmove=sse memset=sse memchr=sse strcasecmp=sse\n/);
    await first.freeze();
    const record = await recorded(bed);
    expect(record).toMatchObject({ baseline: 'x86-64-v2', masked: ['popcnt'] });
    expect(record.features).toEqual(expect.arrayContaining(['pni', 'ssse3', 'sse4_2']));
    expect(record.features.filter((name) => /popcnt|avx|fma|aes/.test(name))).toEqual([]);

    const files = without(/^(avx.*|fma|f16c|bmi.|aes|sha_ni|vaes|gfni|popcnt|movbe|xsavec)$/);
    const second = bed.run(await bed.place({ files }), url(bed), command);
    await second.ready('restored');
    await second.freeze();
    expect(await recorded(bed)).toEqual(record);
    const third = bed.run(await bed.place(), [...url(bed), '--cpu-baseline', 'x86-64-v3'], command);
    await third.says(
      /Warning: the application was started with --cpu-baseline x86-64-v2 and .*MASK=popcnt, and continues so/,
    );
    bed.write('stop', '');
    expect(await third.ends()).toMatchObject({ code: 0 });
    // A child that was born after the restores.
    expect(third.stdout).toBe('glibc: memmove=sse memset=sse memchr=sse strcasecmp=sse\n');
  });
}, 90_000);

test('where the CPU lacks what the job may use, nothing is restored', async () => {
  await withBed('user', async (bed) => {
    const command = ['sh', '-c', 'echo here; until [ -e "$0" ]; do sleep 0.05; done', bed.path('stop')];
    const first = bed.run(await bed.place(), url(bed), command);
    await first.prints(/here/);
    await first.freeze();
    expect(await recorded(bed)).toMatchObject({ baseline: 'host', masked: [] });
    const lesser = await bed.place({ files: without(/^(sse4_2|popcnt)$/) });
    const refused = bed.run(lesser, url(bed), command);
    expect(await refused.ends()).toMatchObject({ code: 171 });
    expect(refused.stderr).toMatch(
      /Error: cannot restore the application: the CPU of this machine lacks what it may use: sse4_2 popcnt\nTry: run it on a machine that has them; or start over with --no-restore --cpu-baseline /,
    );
    expect(refused.stderr).not.toMatch(/Application is ready/);
    expect(bed.list('logs')).toEqual([]);
    expect(generations(bed.path('image'))).toEqual([1]);
    const again = bed.run(await bed.place(), url(bed), command);
    await again.ready('restored');
    bed.write('stop', '');
    expect(await again.ends()).toMatchObject({ code: 0 });
  });
}, 60_000);

test('who knows better continues on a lesser CPU all the same', async () => {
  await withBed('root', async (bed) => {
    const command = ['sh', '-c', 'echo here; until [ -e "$0" ]; do sleep 0.05; done', bed.path('stop')];
    const first = bed.run(await bed.place(), url(bed), command);
    await first.prints(/here/);
    await first.freeze();
    const lesser = await bed.place({ files: without(/^popcnt$/) });
    const again = bed.run(lesser, [...url(bed), '--allow-inexact'], command);
    await again.ready('restored');
    expect(again.stderr).toMatch(/Warning: the CPU of this machine lacks what it may use: popcnt: .*SIGILL/);
    bed.write('stop', '');
    expect(await again.ends()).toMatchObject({ code: 0 });
  });
}, 60_000);

test('a fleet is what all its machines have; OpenSSL and the search for libraries keep to it as well', async () => {
  await withBed('root', async (bed) => {
    const fleet = bed.write('fleet', `${CPUINFO}${without(/^(aes|avx.*|fma|f16c)$/)['/proc/cpuinfo'] ?? ''}`);
    const script = `echo "\${JAVA_TOOL_OPTIONS-none}"; ${LOADER} --help | grep 'x86-64-v'; ${PYTHON} -c '${OPENSSL}'`;
    const options = [...url(bed), '--cpu-baseline', `fleet:${fleet}`];
    const env = { OPENBLAS_CORETYPE: 'Zen' };
    const job = bed.run(await bed.place(), options, ['sh', '-c', script], { env });
    expect(await job.ends()).toMatchObject({ code: 0 });
    expect(job.stderr).toMatch(/Warning: OPENBLAS_CORETYPE stays as you set it/);
    expect(job.stdout).toMatch(/^-XX:\+IgnoreUnrecognizedVMOptions -XX:UseAVX=0 .*-XX:-UseAES/);
    expect(job.stdout).toMatch(/x86-64-v3\n {2}x86-64-v2 \(supported, searched\)\n/);
    const vector = BigInt(/OPENSSL_ia32cap=(0x[0-9a-f]+):/.exec(job.stdout)?.[1] ?? '-1');
    const has = (bit: number): boolean => ((vector >> BigInt(bit)) & 1n) === 1n;
    // AES, AVX, and SSSE3, which both have.
    expect([has(57), has(60), has(41)]).toEqual([false, false, true]);
  });
}, 30_000);

test('docs/cpu.md: a fleet as it is asked for, and x86-64-v3', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    // Every host is this one.
    chmodSync(bed.write('work/ssh', '#!/bin/sh\nshift\nexec "$@"\n'), 0o755);
    const asking = await place.exec(['sh', '-euc', typed('docs/cpu.md', 'for host')], {
      env: { PATH: `${bed.path('work')}:${PATH_OF_JOBS}` },
    });
    expect(asking).toMatchObject({ code: 0 });
    const [flags = ''] = /^flags.*$/m.exec(CPUINFO) ?? [];
    expect(readFileSync(bed.path('work', 'fleet'), 'utf8')).toBe(`${flags}\n`.repeat(3));

    chmodSync(bed.write('work/simulate', `#!/bin/sh\necho "\${GLIBC_TUNABLES-none}"\n`), 0o755);
    const [, ...line] = typed('docs/cpu.md', 'fastfreeze run').replace('/images', bed.path('images')).split(' ');
    expect(line).toContain('x86-64-v3');
    const reached = (await place.exec([LOADER, '--help'])).stdout;
    for (const baseline of ['x86-64-v3', 'x86-64-v4', 'host', 'fleet:fleet']) {
      const words = line.map((word) => word.replace('x86-64-v3', baseline));
      const job = bed.start(place, words);
      const { code } = await job.ends();
      if (baseline.startsWith('x86') && !reached.includes(`${baseline} (supported`)) {
        expect([code, job.stderr]).toEqual([170, expect.stringMatching(/: the CPU of this machine lacks .*\nTry: /)]);
        continue;
      }
      expect([baseline, code]).toEqual([baseline, 0]);
      if (baseline === 'host') expect(job.stdout).toBe('none\n');
      const isOfFleet = (flag: string): boolean =>
        baseline.startsWith('fleet') && !new RegExp(` ${flag}\\b`).test(flags);
      const hidden = ['-AVX2,', '-AVX512F,'].map((one) => job.stdout.includes(one));
      expect([baseline, ...hidden]).toEqual([
        baseline,
        isOfFleet('avx2'),
        baseline === 'x86-64-v3' || isOfFleet('avx512f'),
      ]);
    }
  });
}, 60_000);

test('what is no baseline, what this machine does not meet, and what cannot be hidden are refused', async () => {
  await withBed('root', async (bed) => {
    const ran = ['touch', bed.path('ran')];
    const refusal = async (words: string[], env = {}, files = {}): Promise<[number, string]> => {
      const job = bed.run(await bed.place({ files }), [...url(bed), ...words], ran, { env });
      const { code } = await job.ends();
      expect(job.stderr).toMatch(/^(\[ff\.run\].*\n)*Error: .+\nTry: .+\n$/);
      return [code, job.stderr];
    };
    const wrong = [
      await refusal(['--cpu-baseline', 'x86-64-v9']),
      await refusal(['--cpu-baseline', `fleet:${bed.path('none')}`]),
      await refusal(['--cpu-baseline', `fleet:${bed.write('damaged', 'flags : fpu ss\n')}`]),
      await refusal([], { FF_APP_VIRT_CPUID_MASK: 'aes,avx9' }),
    ];
    expect(wrong.map(([code]) => code)).toEqual([2, 2, 2, 2]);
    expect(wrong.map(([, text]) => text)).toEqual([
      expect.stringMatching(/--cpu-baseline "x86-64-v9": expected x86-64-v2, .* or fleet:FILE/),
      expect.stringMatching(/fleet:.*none: there is no such file\nTry: .*grep -m1 \^flags/),
      expect.stringMatching(/damaged: line 1 .*cut short/),
      expect.stringMatching(/there is no feature avx9 that could be hidden\nTry: .*=help lists them/),
    ]);
    const [code, text] = await refusal(['--cpu-baseline', 'x86-64-v2'], {}, without(/^(ssse3|cx16)$/));
    expect(code).toBe(170);
    expect(text).toMatch(/x86-64-v2: the CPU of this machine lacks ssse3 cx16\nTry: this machine reaches x86-64;/);
    expect(existsSync(bed.path('ran'))).toBe(false);

    const help = await (await bed.place()).fastfreeze(['run'], { env: { FF_APP_VIRT_CPUID_MASK: 'help' } });
    expect(help).toMatchObject({ code: 0, stderr: '' });
    expect(help.stdout.split('\n')).toEqual(expect.arrayContaining(['avx512f', 'hle', 'rtm', 'pni']));
    writeFileSync(bed.path('ran'), '');
  });
}, 60_000);

/** For a program to say whether it is there. */
const ASK_MS = 60_000;
/** The first Python that has NumPy. */
const NUMPY = ['python3', PYTHON].find(
  (python) => spawnSync(python, ['-c', 'import numpy'], { timeout: ASK_MS }).status === 0,
);
const FEATURES = `
import ctypes, re
OLD = ("SSSE3", "SSE41", "POPCNT", "SSE42", "X86_V2")
try: import numpy._core._multiarray_umath as core
except ImportError: import numpy.core._multiarray_umath as core
# Kinds of code that it has, and takes.
print("numpy:", *(name for name in core.__cpu_dispatch__ if core.__cpu_features__[name] and name not in OLD))
paths = set(re.findall(r"(/\\S*openblas\\S*)$", open("/proc/self/maps").read(), re.M))
names = [prefix + "openblas_get_corename" + suffix for prefix in ("", "scipy_") for suffix in ("", "64_")]
for path in paths:
    library = ctypes.CDLL(path)
    for name in names:
        if hasattr(library, name):
            ask = getattr(library, name)
            ask.restype = ctypes.c_char_p
            print("openblas:", ask().decode())
`;

if (NUMPY === undefined) test.skip('NumPy, and the OpenBLAS that it brings, keep to a baseline', () => undefined);
else {
  test('NumPy, and the OpenBLAS that it brings, keep to a baseline', async () => {
    await withBed('root', async (bed) => {
      const python = spawnSync(NUMPY, ['-c', 'import sys; print(sys.executable)'], {
        encoding: 'utf8',
        timeout: ASK_MS,
      }).stdout.trim();
      const script = bed.write('features.py', FEATURES);
      const options = [...url(bed), '--cpu-baseline', 'x86-64-v2'];
      const job = bed.run(await bed.place(), options, [python, '-W', 'ignore', script]);
      expect(await job.ends()).toMatchObject({ code: 0 });
      expect(job.stdout).toMatch(/^numpy:\n/);
      // Debian's NumPy has the BLAS of the system.
      if (job.stdout.includes('openblas')) expect(job.stdout).toMatch(/^openblas: Nehalem$/m);
    });
  }, 60_000);
}

if (spawnSync('java', ['-version'], { timeout: ASK_MS }).status !== 0)
  test.skip('the JVM keeps to a baseline', () => undefined);
else {
  test('the JVM keeps to a baseline', async () => {
    await withBed('user', async (bed) => {
      const options = [...url(bed), '--cpu-baseline', 'x86-64-v2'];
      const job = bed.run(await bed.place(), options, ['java', '-XX:+PrintFlagsFinal', '-version']);
      expect(await job.ends()).toMatchObject({ code: 0 });
      const flag = (name: string): string | undefined => new RegExp(` ${name} += (\\S+)`).exec(job.stdout)?.[1];
      expect([flag('UseAVX'), flag('UseAES'), flag('UseSSE')]).toEqual(['0', 'false', '4']);
    });
  }, 60_000);
}
