// SPDX-License-Identifier: Apache-2.0
import { basename, resolve } from 'node:path';
import { FastFreezeError } from '../base/errors.js';
import { CPU_MASK, wrongPatterns } from '../container/app-env.js';
import { type CpuWish, parseCpuBaseline, parseCpuMask } from '../container/cpu-baseline.js';
import { commandSha256 } from '../engine/command-mark.js';
import type { RunOptions } from '../engine/run.js';
import { signalNumber } from '../linux/process.js';
import { jobUrl, lastName } from '../store/job-url.js';
import {
  type ParsedArguments,
  countOption,
  cpuBudgetOption,
  durationOption,
  flagOption,
  logFormatOption,
  pathOption,
  textOption,
  verbosityOption,
  wrongValue,
} from './arguments.js';
import { generationOption } from './image-arguments.js';
import { passphraseOption } from './passphrase.js';
import { exceptOption, preserveOption } from './preserve.js';

/** Those of `run`, which `batch run` has as well. */
export const RUN_OPTIONS = {
  'image-url': { type: 'string', short: 'i' },
  'image-base': { type: 'string' },
  'job-id': { type: 'string' },
  'no-restore': { type: 'boolean' },
  generation: { type: 'string' },
  'allow-bad-image-version': { type: 'boolean' },
  'leave-stopped': { type: 'boolean' },
  'tcp-listen-remap': { type: 'string', multiple: true },
  'allow-inexact': { type: 'boolean' },
  'checkpoint-every': { type: 'string' },
  'mean-time-to-preemption': { type: 'string' },
  'checkpoint-on': { type: 'string', multiple: true },
  keep: { type: 'string' },
  'num-shards': { type: 'string' },
  'cpu-budget': { type: 'string' },
  container: { type: 'string', short: 'n' },
  'no-container': { type: 'boolean' },
  'on-app-ready': { type: 'string' },
  'lease-ttl': { type: 'string' },
  'lease-wait': { type: 'string' },
  'strict-lease': { type: 'boolean' },
  'force-lease': { type: 'boolean' },
  spool: { type: 'string' },
  'passphrase-file': { type: 'string' },
  'require-time-virtualization': { type: 'boolean' },
  'scrub-env': { type: 'string', multiple: true },
  'preserve-path': { type: 'string', multiple: true },
  'preserve-open-files': { type: 'boolean' },
  'preserve-except': { type: 'string', multiple: true },
  'preserve-setuid': { type: 'boolean' },
  'carry-mapped': { type: 'boolean' },
  'cpu-baseline': { type: 'string' },
  output: { type: 'string', short: 'o' },
  error: { type: 'string', short: 'e' },
  'log-format': { type: 'string' },
  'metrics-file': { type: 'string' },
  'notify-fd': { type: 'string' },
  verbose: { type: 'boolean', short: 'v', multiple: true },
} as const;

/** `image` is where the image is, and whether the caller said so. */
export function toRunOptions(parsed: ParsedArguments, image: ImageUrl): RunOptions {
  const command = parsed.rest;
  if (command[0] === '') throw wrongCommand();
  const { url, given } = image;
  const optional = <K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> =>
    value === undefined ? {} : ({ [key]: value } as Record<K, V>);
  return {
    jobName: jobName(parsed, url),
    imageUrl: url,
    imageUrlGiven: given,
    command,
    noRestore: flagOption(parsed, 'no-restore'),
    returnFinished: false,
    ...optional('generation', generationOption(parsed)),
    allowBadImageVersion: flagOption(parsed, 'allow-bad-image-version'),
    leaveStopped: flagOption(parsed, 'leave-stopped'),
    listenPorts: listenPortsOption(parsed),
    allowInexact: flagOption(parsed, 'allow-inexact'),
    ...optional('checkpointEveryMs', isAuto(parsed) ? undefined : durationOption(parsed, 'checkpoint-every')),
    checkpointOnSignals: signalsOption(parsed),
    keep: countOption(parsed, 'keep', 2, 1),
    numShards: countOption(parsed, 'num-shards', 4, 1),
    cpuBudget: cpuBudgetOption(parsed) ?? 'medium',
    container: !flagOption(parsed, 'no-container'),
    ...optional('onAppReady', textOption(parsed, 'on-app-ready')),
    ...optional('spoolDirectory', pathOption(parsed, 'spool')),
    preserve: preserveOption(parsed),
    preserveExcept: exceptOption(parsed),
    preserveSetuid: flagOption(parsed, 'preserve-setuid'),
    ...optional('outputPath', pathOption(parsed, 'output')),
    ...optional('passphrase', passphraseOption(parsed)),
    requireTimeVirtualization: flagOption(parsed, 'require-time-virtualization'),
    scrubEnvironment: scrubOption(parsed),
    ...optional('cpuWish', cpuWish(parsed)),
    ...optional('errorPath', pathOption(parsed, 'error')),
    leaseTtlMs: leaseTtl(parsed),
    ...optional('leaseWaitMs', durationOption(parsed, 'lease-wait', 0)),
    strictLease: flagOption(parsed, 'strict-lease'),
    forceLease: flagOption(parsed, 'force-lease'),
    ...optional('metricsPath', pathOption(parsed, 'metrics-file')),
    cliArgs: ['fastfreeze', ...process.argv.slice(2)],
    verbosity: verbosityOption(parsed),
    logFormat: logFormatOption(parsed),
  };
}

export interface ImageUrl {
  readonly url: string;
  readonly given: boolean;
}

/** Where `run` finds and leaves the image: as it was told, or by default at the command's own place. */
export function imageUrl(parsed: ParsedArguments): ImageUrl {
  const url = textOption(parsed, 'image-url');
  const base = textOption(parsed, 'image-base');
  const id = textOption(parsed, 'job-id');
  if (url !== undefined) {
    if (base !== undefined || id !== undefined) {
      throw wrongValue('image-url', url, 'give either --image-url, or --image-base with --job-id');
    }
    return { url, given: true };
  }
  if (base !== undefined || id !== undefined) {
    if (base === undefined || id === undefined || id === '') {
      throw wrongValue('job-id', id ?? '', '--image-base and --job-id go together');
    }
    return { url: jobUrl(base, id), given: true };
  }
  return { url: defaultUrl(parsed.rest), given: false };
}

/** `file:$HOME/.fastfreeze/NAME`, with a mark of the whole command line when it has arguments. */
function defaultUrl(command: readonly string[]): string {
  const home = process.env['HOME'] ?? '';
  const [program] = command;
  if (program === undefined) {
    throw new FastFreezeError({
      code: 'usage',
      op: 'run',
      reason: 'there is neither a command to start nor an image URL to restore from',
      hint: 'fastfreeze run --image-url URL -- COMMAND',
    });
  }
  if (home === '') {
    throw new FastFreezeError({
      code: 'usage',
      op: 'choose an image URL',
      reason: 'HOME is not set, and no --image-url is given',
      hint: 'give --image-url',
    });
  }
  const mark = commandSha256(command).slice(0, 4);
  const name = command.length > 1 ? `${basename(program)}-${mark}` : basename(program);
  return `file:${encodeURI(resolve(home, '.fastfreeze', name))}`;
}

function jobName(parsed: ParsedArguments, url: string): string {
  const given = textOption(parsed, 'container');
  const name = given ?? lastName(url);
  if (name === '' || name.length > 100 || name.includes('/') || name.includes('\0')) {
    throw wrongValue('container', name, 'a name of 1 to 100 characters without / is needed');
  }
  return name;
}

function signalsOption(parsed: ParsedArguments): number[] {
  const given = parsed.values['checkpoint-on'];
  const names = signalNames('checkpoint-on', (Array.isArray(given) ? given : []).join(','));
  return names.flatMap((name) => signalNumber(name) ?? []);
}

/** A list of signals that can be caught, with or without SIG, as their full names. */
export function signalNames(option: string, list: string): NodeJS.Signals[] {
  return list
    .split(',')
    .filter((word) => word !== '')
    .map((word) => {
      const upper = word.toUpperCase();
      if (signalNumber(upper) === undefined || upper.endsWith('KILL') || upper.endsWith('STOP')) {
        throw wrongValue(option, word, 'expected names of signals that can be caught, such as SIGINT,SIGTERM');
      }
      return (upper.startsWith('SIG') ? upper : `SIG${upper}`) as NodeJS.Signals;
    });
}

function scrubOption(parsed: ParsedArguments): string[] {
  const given = parsed.values['scrub-env'];
  const patterns = Array.isArray(given) ? given.map(String) : [];
  const [wrong] = wrongPatterns(patterns);
  if (wrong === undefined) return patterns;
  throw wrongValue('scrub-env', wrong, "expected the name of a variable, such as AWS_SECRET_ACCESS_KEY or 'AWS_*'");
}

function listenPortsOption(parsed: ParsedArguments): [number, number][] {
  const given = parsed.values['tcp-listen-remap'];
  const pairs = (Array.isArray(given) ? given.map(String) : []).flatMap((one) => one.split(','));
  const ports = pairs.map((pair): [number, number] => {
    const [from, to] = pair.split(':').map(Number);
    const fits = [from, to].every((port) => port !== undefined && Number.isInteger(port) && port > 0 && port < 65536);
    if (!/^\d+:\d+$/.test(pair) || !fits) {
      throw wrongValue('tcp-listen-remap', pair, 'expected OLD:NEW, ports from 1 to 65535, such as 8080:18080');
    }
    return [from ?? 0, to ?? 0];
  });
  const twice = ports.find(([from], i) => ports.findIndex(([other]) => other === from) !== i);
  if (twice === undefined) return ports;
  throw wrongValue('tcp-listen-remap', twice.join(':'), `port ${twice[0]} is named twice`);
}

/** Undefined when neither the option nor the variable is given. A folder's `fleet:FILE` is that of the caller. */
function cpuWish(parsed: ParsedArguments): CpuWish | undefined {
  const text = textOption(parsed, 'cpu-baseline');
  const masked = parseCpuMask(process.env[CPU_MASK] ?? '');
  if (text === undefined) return masked.length === 0 ? undefined : { baseline: { kind: 'host' }, masked };
  const baseline = parseCpuBaseline(text);
  if (baseline === undefined) {
    throw wrongValue('cpu-baseline', text, 'expected x86-64-v2, x86-64-v3, x86-64-v4, host or fleet:FILE');
  }
  return { baseline: baseline.kind === 'fleet' ? { ...baseline, path: resolve(baseline.path) } : baseline, masked };
}

function leaseTtl(parsed: ParsedArguments): number {
  const ttlMs = durationOption(parsed, 'lease-ttl') ?? DEFAULT_LEASE_TTL_MS;
  if (ttlMs >= MIN_LEASE_TTL_MS && ttlMs <= MAX_LEASE_TTL_MS) return ttlMs;
  throw wrongValue('lease-ttl', textOption(parsed, 'lease-ttl') ?? '', 'expected 3s to 1h');
}

const DEFAULT_LEASE_TTL_MS = 30_000;
/** A renewal is due every third of it, and a service may take a second for one. */
const MIN_LEASE_TTL_MS = 3_000;
const MAX_LEASE_TTL_MS = 3_600_000;

function wrongCommand(): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'run',
    reason: 'the command is an empty word',
    hint: 'fastfreeze run -- COMMAND',
  });
}

/** `--checkpoint-every auto`. */
export function isAuto(parsed: ParsedArguments): boolean {
  return textOption(parsed, 'checkpoint-every') === 'auto';
}
