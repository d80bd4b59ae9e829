// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { CpuRecord } from './cpu-baseline.js';
import { cpuSwitches } from './cpu-switches.js';

/** What makes the application's environment out of the supervisor's. */
export interface AppEnvironment {
  readonly set: Readonly<Record<string, string>>;
  readonly unset: readonly string[];
  /** Variables of the user's that show programs more of the CPU than they are to see. */
  readonly kept: readonly string[];
}

export interface AppEnvironmentOptions {
  /** The environment of `run`. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** `--scrub-env`, in order: names with `*` for any characters; after a `!`, names to keep. The last that fits decides. */
  readonly scrub: readonly string[];
  /** The application takes itself for root, although its user is not. */
  readonly fakeRoot: boolean;
  /** What it may use of the CPU; undefined before that is known. */
  readonly cpu?: CpuRecord;
}

/** What GitHub hands to its runner's own steps: tokens for the cache, artifacts and OIDC. They outlive no job, and end up in no image. */
const SCRUBBED_BY_DEFAULT = ['ACTIONS_*'];
/**
 * And what an action's step has beside, which a command's own step would not: its inputs (a token and a passphrase among them), what its
 * parts tell each other, and the job's token. Elsewhere than on a runner these names may be anybody's.
 */
const SCRUBBED_ON_A_RUNNER = ['INPUT_*', 'STATE_*', 'GITHUB_TOKEN', 'GH_TOKEN', 'RUNNER_*_TOKEN'];
const PREFIX = 'FF_APP_';
const INJECT = 'FF_APP_INJECT_';
/** Not a variable of the application's, but what becomes of several. */
export const CPU_MASK = 'FF_APP_VIRT_CPUID_MASK';

/**
 * The application's environment, by FastFreeze's rules: `FF_APP_PATH` is its PATH, `FF_APP_LD_LIBRARY_PATH` its
 * LD_LIBRARY_PATH, `FF_APP_INJECT_NAME` its NAME. None of these reaches it under its own name, and nothing that is scrubbed;
 * what is injected is meant to be there, whatever its name. Throws `usage` for a variable that cannot be meant.
 */
export function appEnvironment(options: AppEnvironmentOptions): AppEnvironment {
  const { env } = options;
  const names = Object.keys(env).filter((name) => env[name] !== undefined);
  const onRunner = env['GITHUB_ACTIONS'] === 'true' ? SCRUBBED_ON_A_RUNNER : [];
  const scrubbed = names.filter(matcher([...SCRUBBED_BY_DEFAULT, ...onRunner, ...options.scrub]));
  const own = names.filter((name) => name.startsWith(PREFIX) && name !== CPU_MASK);
  const set: Record<string, string> = { FASTFREEZE: '1' };
  const present = new Set(names.filter((name) => !scrubbed.includes(name)));
  const unlessGiven = (name: string, value: string): void => {
    if (!present.has(name)) set[name] = value;
  };
  unlessGiven('UV_USE_IO_URING', '0');
  if (options.fakeRoot) {
    // The application sees itself as root of its user namespace; these programs would act on it.
    unlessGiven('TAR_OPTIONS', '--no-same-owner');
    unlessGiven('OMPI_ALLOW_RUN_AS_ROOT', '1');
    unlessGiven('OMPI_ALLOW_RUN_AS_ROOT_CONFIRM', '1');
  }
  for (const name of own) set[target(name)] = env[name] ?? '';
  const given = (name: string): string | undefined => set[name] ?? (present.has(name) ? env[name] : undefined);
  const switches = options.cpu === undefined ? { set: {}, kept: [] } : cpuSwitches(options.cpu, given);
  Object.assign(set, switches.set);
  const unset = [...new Set([...scrubbed, ...own, CPU_MASK])].filter((name) => !(name in set));
  return { set, unset, kept: switches.kept };
}

/** Words of `--scrub-env` that cannot fit any name. */
export function wrongPatterns(patterns: readonly string[]): string[] {
  return patterns.filter((pattern) => !/^!?[^=!\0]+$/.test(pattern));
}

function target(name: string): string {
  if (name === 'FF_APP_PATH') return 'PATH';
  if (name === 'FF_APP_LD_LIBRARY_PATH') return 'LD_LIBRARY_PATH';
  const injected = name.startsWith(INJECT) ? name.slice(INJECT.length) : '';
  if (injected !== '') return injected;
  throw new FastFreezeError({
    code: 'usage',
    op: 'understand the variable',
    subject: name,
    reason: 'there is none of this name',
    hint: 'FF_APP_PATH, FF_APP_LD_LIBRARY_PATH, FF_APP_INJECT_NAME and FF_APP_VIRT_CPUID_MASK change what the application gets',
  });
}

function matcher(patterns: readonly string[]): (name: string) => boolean {
  const rules = patterns.map((pattern) => ({
    scrub: !pattern.startsWith('!'),
    fits: new RegExp(`^${pattern.replace(/^!/, '').split('*').map(escape).join('.*')}$`, 's'),
  }));
  return (name) => rules.findLast(({ fits }) => fits.test(name))?.scrub ?? false;
}

function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
