// SPDX-License-Identifier: Apache-2.0
import { credentialNames } from './credentials.js';
import type { Inputs } from './inputs.js';

/** What GitHub's runner gives to actions and not to commands, and what is of one step only. */
const OF_ACTIONS = ['INPUT_*', 'STATE_*', 'ACTIONS_*', 'RUNNER_TRACKING_ID', 'GITHUB_STATE'];
/** Tokens by their usual names: an image would keep them, and the job that continues has others. */
const TOKENS = ['GITHUB_TOKEN', 'GH_TOKEN', 'ACTIONS_RUNTIME_TOKEN'];

/**
 * The engine's environment. It outlives the step on a self-hosted runner only without the mark by which the runner finds what to end, and
 * it needs no inputs; `ACTIONS_*` stay, since a store may be reached by them.
 */
export function engineEnvironment(env: NodeJS.ProcessEnv, more: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const kept = Object.entries(env).filter(
    ([name]) => !/^(?:INPUT_|STATE_|RUNNER_TRACKING_ID$|GITHUB_STATE$)/.test(name),
  );
  return { ...Object.fromEntries(kept), ...more };
}

/** Patterns of what the command does not get, in order: ours, the store's, what holds a secret of ours under any name, then the user's. */
export function scrubPatterns(
  env: NodeJS.ProcessEnv,
  inputs: Pick<Inputs, 'githubToken' | 'passphrase' | 'envScrub'>,
  imageUrl: string,
): string[] {
  const secrets = [inputs.githubToken, inputs.passphrase, env['ACTIONS_RUNTIME_TOKEN']].filter(
    (one) => one !== undefined && one !== '',
  );
  const holders = Object.keys(env).filter((name) => secrets.includes(env[name]) && !/[*!=]/.test(name));
  return [...OF_ACTIONS, ...TOKENS, ...credentialNames(imageUrl), ...holders, ...inputs.envScrub];
}
