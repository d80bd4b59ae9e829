// SPDX-License-Identifier: Apache-2.0
import { CPU_FEATURES, type CpuidWord, levelFeatures } from '../linux/cpu-features.js';
import { type CpuRecord, hiddenFeatures } from './cpu-baseline.js';

/** Variables that keep programs from using features of the CPU. docs/cpu.md says who reads which. */
export interface CpuSwitches {
  readonly set: Readonly<Record<string, string>>;
  /** What the user has set already, and keeps: we cannot add to its meaning. */
  readonly kept: readonly string[];
}

/** What to add to an environment so that its programs keep to what they may use. Only what concerns a hidden feature is set. */
export function cpuSwitches(record: CpuRecord, given: (name: string) => string | undefined): CpuSwitches {
  const hidden = hiddenFeatures(record);
  const allowed = new Set(record.features);
  const set: Record<string, string> = {};
  const kept: string[] = [];
  const merged = (name: string, value: string | undefined, join: (theirs: string, ours: string) => string): void => {
    if (value !== undefined) set[name] = join(given(name) ?? '', value);
  };
  const single = (name: string, value: string | undefined, unless = name): void => {
    if (value === undefined || given(name) === value) return;
    if (given(name) === undefined && given(unless) === undefined) set[name] = value;
    else kept.push(given(name) === undefined ? unless : name);
  };
  merged('GLIBC_TUNABLES', glibcHwcaps(hidden), withHwcaps);
  merged('JAVA_TOOL_OPTIONS', javaOptions(hidden, allowed), (theirs, ours) => `${ours} ${theirs}`.trim());
  single('OPENSSL_ia32cap', opensslMask(hidden));
  // NumPy refuses to start with both.
  single('NPY_DISABLE_CPU_FEATURES', numpyFeatures(hidden), 'NPY_ENABLE_CPU_FEATURES');
  single('OPENBLAS_CORETYPE', best(OPENBLAS_CORES, hidden, allowed));
  single('MKL_ENABLE_INSTRUCTIONS', best(MKL_INSTRUCTIONS, hidden, allowed));
  for (const name of touched(DOTNET, hidden)) single(`DOTNET_${name}`, '0');
  return { set, kept };
}

type Users = Readonly<Record<string, readonly string[]>>;

/** Those that use, or stand for, something that is hidden. */
function touched(users: Users, hidden: ReadonlySet<string>): string[] {
  return Object.entries(users).flatMap(([name, used]) => (used.some((one) => hidden.has(one)) ? [name] : []));
}

const V3 = levelFeatures('x86-64-v3');
const V4 = levelFeatures('x86-64-v4');
const NEWER_AVX512 = CPU_FEATURES.map(({ name }) => name).filter(
  (name) => name.startsWith('avx512') && !V4.includes(name),
);

/**
 * Names of glibc's and the features they stand for. Up to 2.32 it asks `AVX2_Usable` where 2.33 and later ask `AVX2`; each
 * passes over the names of the other. Copying memory is chosen by the preference alone, without a look at AVX.
 */
const GLIBC: Users = {
  SSSE3: ['ssse3'],
  SSE4_1: ['sse4_1'],
  SSE4_2: ['sse4_2'],
  POPCNT: ['popcnt'],
  MOVBE: ['movbe'],
  LZCNT: ['abm'],
  BMI1: ['bmi1'],
  BMI2: ['bmi2'],
  AVX: ['avx'],
  AVX_Usable: ['avx'],
  AVX_Fast_Unaligned_Load: ['avx', 'avx2'],
  FMA: ['fma'],
  FMA_Usable: ['fma'],
  FMA4: ['fma4'],
  FMA4_Usable: ['fma4'],
  AVX2: ['avx2'],
  AVX2_Usable: ['avx2'],
  AVX512F: ['avx512f'],
  AVX512F_Usable: ['avx512f'],
  AVX512CD: ['avx512cd'],
  AVX512BW: ['avx512bw'],
  AVX512DQ: ['avx512dq'],
  AVX512DQ_Usable: ['avx512dq'],
  AVX512VL: ['avx512vl'],
  AVX512ER: ['avx512er'],
  AVX512PF: ['avx512pf'],
  XSAVE: ['xsave'],
  OSXSAVE: ['xsave'],
  XSAVEC: ['xsavec'],
  XSAVEC_Usable: ['xsavec'],
  RTM: ['rtm'],
  ERMS: ['erms'],
  Prefer_FSRM: ['fsrm'],
};

function glibcHwcaps(hidden: ReadonlySet<string>): string | undefined {
  const names = touched(GLIBC, hidden);
  return names.length === 0 ? undefined : names.map((name) => `-${name}`).join(',');
}

/** The namespace was `tune` before 2.29. Of two values of one tunable only one counts: ours goes behind the user's, in its value. */
function withHwcaps(theirs: string, ours: string): string {
  const tunables = theirs.split(':').filter((one) => one !== '');
  for (const name of ['glibc.cpu.hwcaps', 'glibc.tune.hwcaps']) {
    const last = tunables.findLastIndex((one) => one.startsWith(`${name}=`));
    if (last < 0) tunables.push(`${name}=${ours}`);
    else tunables[last] = `${tunables[last] ?? ''},${ours}`;
  }
  return tunables.join(':');
}

/** OpenSSL's vectors: each is two words of CPUID, the second above the first. Versions before 3.5 know the first two. */
const OPENSSL_WORDS: Readonly<Partial<Record<CpuidWord, number>>> = {
  '1c': 32,
  '7b': 64,
  '7c': 96,
  '7d': 128,
  '7.1a': 160,
};

/** Beside the words: bits of OpenSSL's own, and what Linux does not name but came with AVX-VNNI or later. */
const OPENSSL_BITS: readonly (readonly [bit: number, name: string])[] = [
  [32 + 11, 'xop'], // in the place of SDBG
  [32 + 27, 'xsave'], // OSXSAVE
  [160 + 0, 'avx_vnni'], // SHA512
  [160 + 1, 'avx_vnni'], // SM3
  [160 + 2, 'avx_vnni'], // SM4
  [160 + 23, 'avx_vnni'], // AVX-IFMA
  [192 + 19, 'avx512_fp16'], // AVX10
];

function opensslMask(hidden: ReadonlySet<string>): string | undefined {
  const vectors = [0n, 0n, 0n, 0n];
  const add = (bit: number): void => {
    const vector = Math.floor(bit / 64);
    vectors[vector] = (vectors[vector] ?? 0n) | (1n << BigInt(bit % 64));
  };
  for (const { name, word, bit } of CPU_FEATURES) {
    const start = OPENSSL_WORDS[word];
    if (start !== undefined && hidden.has(name)) add(start + bit);
  }
  for (const [bit, name] of OPENSSL_BITS) if (hidden.has(name)) add(bit);
  const last = vectors.findLastIndex((mask) => mask !== 0n);
  if (last < 0) return undefined;
  // A vector that is left empty would be read as 0 by older versions: nothing allowed. ~0x0 takes nothing away.
  return vectors
    .slice(0, Math.max(last + 1, 2))
    .map((mask) => `~0x${mask.toString(16)}`)
    .join(':');
}

const SKX = V4;
const CLX = [...SKX, 'avx512_vnni'];
const CNL = [...SKX, 'avx512ifma', 'avx512vbmi'];
const ICL = [
  ...[...CLX, ...CNL, 'avx512_vbmi2', 'avx512_bitalg', 'avx512_vpopcntdq'],
  ...['gfni', 'vaes', 'vpclmulqdq'],
];

/**
 * Names of NumPy's dispatched code. What its build takes for granted cannot be named: NumPy would not load. That is SSE3 up to
 * 2.3, and x86-64-v2 since 2.4.
 */
const NUMPY: Users = {
  AVX: ['avx'],
  F16C: ['f16c'],
  FMA3: ['fma'],
  AVX2: ['avx2'],
  AVX512F: ['avx512f'],
  AVX512CD: ['avx512cd'],
  AVX512_SKX: SKX,
  AVX512_CLX: CLX,
  AVX512_CNL: CNL,
  AVX512_ICL: ICL,
  AVX512_SPR: [...ICL, 'avx512_fp16', 'avx512_bf16'],
  X86_V3: V3,
  X86_V4: V4,
};

function numpyFeatures(hidden: ReadonlySet<string>): string | undefined {
  const names = touched(NUMPY, hidden);
  return names.length === 0 ? undefined : names.join(' ');
}

/** What a library may be told to be content with, best first: its name, and what that uses. The last is the least there is. */
type Ladder = readonly (readonly [name: string, used: readonly string[]])[];

const OPENBLAS_CORES: Ladder = [
  ['SkylakeX', V4],
  ['Haswell', ['avx2', 'fma', 'avx']],
  ['Sandybridge', ['avx']],
  ['Nehalem', ['sse4_2', 'sse4_1']],
  ['Core2', ['ssse3']],
  ['Prescott', []],
];

const MKL_INSTRUCTIONS: Ladder = [
  ['AVX512', V4],
  ['AVX2', ['avx2', 'fma', 'avx', 'f16c', 'bmi1', 'bmi2']],
  ['AVX', ['avx']],
  ['SSE4_2', []],
];

/** Undefined where nothing is hidden that they would choose their code by. */
function best(ladder: Ladder, hidden: ReadonlySet<string>, allowed: ReadonlySet<string>): string | undefined {
  const noticed = [...ladder.flatMap(([, used]) => used), ...NEWER_AVX512, 'avx_vnni', 'amx_tile', 'fma4'];
  if (!noticed.some((name) => hidden.has(name))) return undefined;
  return ladder.find(([, used]) => used.every((name) => allowed.has(name)))?.[0];
}

/** Flags of HotSpot that turn something off, and what for. Where it has none of that grain, the next coarser. */
const JAVA: Users = {
  UseAES: ['aes'],
  UseSHA: ['sha_ni'],
  UseCLMUL: ['pclmulqdq'],
  UseFMA: ['fma'],
  UseBMI1Instructions: ['bmi1'],
  UseCountTrailingZerosInstruction: ['bmi1'],
  UseBMI2Instructions: ['bmi2', 'adx'],
  UseCountLeadingZerosInstruction: ['abm'],
  UsePopCountInstruction: ['popcnt'],
};

/** Old versions take at most 1023 characters, ours and the user's. */
function javaOptions(hidden: ReadonlySet<string>, allowed: ReadonlySet<string>): string | undefined {
  // A level above the machine's own would be told of on standard error.
  const level = (levels: readonly (readonly string[])[]): number | undefined => {
    if (!levels.flat().some((name) => hidden.has(name))) return undefined;
    const reached = levels.findIndex((used) => !used.every((name) => allowed.has(name)));
    return reached < 0 ? levels.length : reached;
  };
  const avx = level(JAVA_AVX);
  const sse = level(JAVA_SSE);
  const options = [
    ...(avx === undefined ? [] : [`-XX:UseAVX=${avx}`]),
    ...(sse === undefined ? [] : [`-XX:UseSSE=${sse + 2}`]),
    ...touched(JAVA, hidden).map((name) => `-XX:-${name}`),
  ];
  // A flag that a version does not have would keep it from starting.
  return options.length === 0 ? undefined : ['-XX:+IgnoreUnrecognizedVMOptions', ...options].join(' ');
}

/** What UseAVX=1, 2, 3 use, and UseSSE=3, 4. The highest takes along all of AVX-512 that there is. */
const JAVA_AVX = [['avx'], ['avx2'], ICL];
const JAVA_SSE = [
  ['pni', 'ssse3'],
  ['sse4_1', 'sse4_2'],
];

/** Switches of .NET that are 0 to turn something off, and what each stands for: those of 10 are coarser than those of 8 and 9. */
const DOTNET: Users = {
  EnableSSE3: ['pni'],
  EnableSSSE3: ['ssse3'],
  EnableSSE41: ['sse4_1'],
  EnableSSE42: ['sse4_2'],
  EnablePOPCNT: ['popcnt'],
  EnableAVX: ['avx'],
  EnableAVX2: ['avx2', 'bmi1', 'bmi2', 'f16c', 'fma', 'abm', 'movbe'],
  EnableBMI1: ['bmi1'],
  EnableBMI2: ['bmi2'],
  EnableFMA: ['fma'],
  EnableLZCNT: ['abm'],
  EnableMOVBE: ['movbe'],
  EnableAVX512: V4,
  EnableAVX512F: ['avx512f', 'avx512vl'],
  EnableAVX512BW: ['avx512bw'],
  EnableAVX512CD: ['avx512cd'],
  EnableAVX512DQ: ['avx512dq'],
  EnableAVX512VBMI: ['avx512vbmi'],
  EnableAVX512v2: ['avx512ifma', 'avx512vbmi'],
  EnableAVX512v3: ['avx512_bitalg', 'avx512_vbmi2', 'avx512_vpopcntdq', 'avx512_vnni'],
  EnableAVX512VP2INTERSECT: ['avx512_vp2intersect'],
  EnableAVX10v1: [...ICL, 'avx512_fp16', 'avx512_bf16'],
  EnableAVXVNNI: ['avx_vnni'],
  EnableAVXVNNIINT: ['avx_vnni'],
  EnableAVXIFMA: ['avx_vnni'],
  EnableAES: ['aes', 'pclmulqdq'],
  EnablePCLMULQDQ: ['pclmulqdq'],
  EnableVAES: ['vaes', 'vpclmulqdq'],
  EnableVPCLMULQDQ: ['vpclmulqdq'],
  EnableGFNI: ['gfni'],
  EnableSHA: ['sha_ni'],
  EnableWAITPKG: ['waitpkg'],
  EnableX86Serialize: ['serialize'],
};
