// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { FastFreezeError, hasErrno } from '../base/errors.js';
import {
  CPU_FEATURES,
  CPU_LEVELS,
  type CpuLevel,
  cpuLevel,
  instructionSets,
  levelFeatures,
  parseCpuFlags,
  withDependants,
} from '../linux/cpu-features.js';

/** What an application is to be shown of the CPU. */
export interface CpuWish {
  readonly baseline: CpuBaseline;
  /** `FF_APP_VIRT_CPUID_MASK`: features to hide in addition. */
  readonly masked: readonly string[];
}

export type CpuBaseline =
  | { readonly kind: 'host' }
  | { readonly kind: 'level'; readonly level: CpuLevel }
  | { readonly kind: 'fleet'; readonly path: string };

/** What an application may use of the CPU, for its image: a machine must have all of `features` to continue it. */
export interface CpuRecord {
  /** One of `BASELINE_NAMES`. */
  readonly baseline: string;
  readonly masked: readonly string[];
  readonly features: readonly string[];
}

/** A choice in words; undefined for what is none. */
export function parseCpuBaseline(text: string): CpuBaseline | undefined {
  if (text === 'host') return { kind: 'host' };
  const level = CPU_LEVELS.find((one) => one === text);
  if (level !== undefined) return { kind: 'level', level };
  return /^fleet:./su.test(text) ? { kind: 'fleet', path: text.slice('fleet:'.length) } : undefined;
}

/** Names that FF_APP_VIRT_CPUID_MASK may have, separated by commas. */
export function parseCpuMask(text: string): string[] {
  const words = text.split(',').map((word) => word.trim());
  const names = words.filter((word) => word !== '');
  const unknown = names.filter((name) => !MASK_NAMES.includes(name));
  if (unknown.length === 0) return names;
  throw new FastFreezeError({
    code: 'usage',
    op: 'understand',
    subject: `FF_APP_VIRT_CPUID_MASK=${text}`,
    reason: `there is no feature ${unknown.join(', ')} that could be hidden`,
    hint: 'names are those of /proc/cpuinfo, separated by commas; FF_APP_VIRT_CPUID_MASK=help lists them',
  });
}

export const MASK_NAMES: readonly string[] = CPU_FEATURES.map(({ name }) => name);

/** What an application that starts here may use. Throws when this machine lacks some of the baseline. */
export function chooseCpu({ baseline, masked }: CpuWish, machine: ReadonlySet<string>): CpuRecord {
  const promised = baselineFeatures(baseline, machine);
  const missing = promised.filter((name) => !machine.has(name));
  if (missing.length > 0) throw unmet(baseline, missing, machine);
  const hidden = withDependants(masked);
  const allowed = new Set(promised.filter((name) => !hidden.has(name)));
  for (const name of ALWAYS_SEEN) if (machine.has(name)) allowed.add(name);
  return { baseline: baselineName(baseline), masked, features: instructionSets(allowed) };
}

/** All that a record may have for its baseline. */
export const BASELINE_NAMES: readonly string[] = ['host', 'fleet', ...CPU_LEVELS];

export function baselineName(baseline: CpuBaseline): string {
  return baseline.kind === 'level' ? baseline.level : baseline.kind;
}

/** glibc saves registers with XSAVE when it binds a symbol, and many versions do so whatever their tunables say. */
const ALWAYS_SEEN: readonly string[] = ['xsave'];

/**
 * What is to be hidden from such an application: everything else, here or not. Children that it starts after a restore see
 * the CPU that they are born on.
 */
export function hiddenFeatures({ baseline, masked, features }: CpuRecord): Set<string> {
  const hidden = withDependants(masked);
  for (const name of ALWAYS_SEEN) if (features.includes(name)) hidden.delete(name);
  if (baseline === 'host') return hidden;
  for (const { name, hint } of CPU_FEATURES) if (!hint && !features.includes(name)) hidden.add(name);
  return hidden;
}

/**
 * The record of an application that was brought back here. Where nothing limits it, programs that it starts from now on find
 * what this machine has.
 */
export function continuedCpu(record: CpuRecord, machine: ReadonlySet<string>): CpuRecord {
  if (record.baseline !== 'host') return record;
  const hidden = hiddenFeatures(record);
  const here = instructionSets(machine).filter((name) => !hidden.has(name));
  return { ...record, features: [...new Set([...record.features, ...here])] };
}

/** Throws, naming them, when this machine lacks features that the application may use. */
export function refuseLesserCpu({ features, baseline }: CpuRecord, machine: ReadonlySet<string>): void {
  const missing = features.filter((name) => !machine.has(name));
  if (missing.length === 0) return;
  const level = cpuLevel(machine);
  const narrower = level === 'x86-64' ? '--cpu-baseline fleet:FILE' : `--cpu-baseline ${level}`;
  const limit = baseline === 'host' ? '' : ` (started with --cpu-baseline ${baseline})`;
  throw new FastFreezeError({
    code: 'host',
    op: 'restore the application',
    reason: `the CPU of this machine lacks what it may use${limit}: ${missing.join(' ')}`,
    hint: `run it on a machine that has them; or start over with --no-restore ${narrower}, and it can move to machines like this one`,
  });
}

function baselineFeatures(baseline: CpuBaseline, machine: ReadonlySet<string>): string[] {
  switch (baseline.kind) {
    case 'host':
      return instructionSets(machine);
    case 'level':
      return levelFeatures(baseline.level);
    case 'fleet':
      return readFleet(baseline.path);
  }
}

/** What all machines of a fleet have: each of them is a line `flags : ...` of its /proc/cpuinfo. */
function readFleet(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const reason = hasErrno(error, 'ENOENT') ? 'there is no such file' : error instanceof Error ? error.message : '?';
    throw wrongFleet(path, reason);
  }
  const machines = text
    .split('\n')
    .map((line, i) => ({ line, number: i + 1 }))
    .filter(({ line }) => /^flags\s*:/.test(line));
  if (machines.length === 0) throw wrongFleet(path, 'it has no line that begins with "flags"');
  const common = machines
    .map(({ line, number }) => {
      const flags = parseCpuFlags(line);
      // Every x86-64 has them, near the line's beginning and in its middle: a line that was cut short is no machine.
      if (['sse2', 'lm'].every((name) => flags.has(name))) return flags;
      throw wrongFleet(path, `line ${number} is not that of an x86-64 machine, or was cut short`);
    })
    .reduce((all, flags) => new Set([...all].filter((name) => flags.has(name))));
  return instructionSets(common);
}

function wrongFleet(path: string, reason: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: `--cpu-baseline fleet:${path}`,
    reason,
    hint: 'collect one line of each machine: grep -m1 ^flags /proc/cpuinfo',
  });
}

function unmet(baseline: CpuBaseline, missing: readonly string[], machine: ReadonlySet<string>): FastFreezeError {
  const fleet = baseline.kind === 'fleet';
  return new FastFreezeError({
    code: 'host',
    op: 'start with',
    subject: `--cpu-baseline ${fleet ? `fleet:${baseline.path}` : baselineName(baseline)}`,
    reason: `the CPU of this machine lacks ${missing.join(' ')}`,
    hint: fleet
      ? 'this machine is none of the fleet: add its line to FILE'
      : `this machine reaches ${cpuLevel(machine)}; choose that, or host`,
  });
}
