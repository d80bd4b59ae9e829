// SPDX-License-Identifier: Apache-2.0
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { budget, failureSince } from '../../../src/action/post-step.js';
import { allowUserNamespaces } from '../../../src/action/runtime.js';
import { makeDirectory } from '../linux/support.js';

const FORBIDDEN = { uid: 1001, userNamespaceSwitch: '1' };

/** A `sudo` that notes what it is asked for, and ends with `code`. */
function withSudo(code: number): { env: NodeJS.ProcessEnv; asked: () => string } {
  const folder = makeDirectory();
  const sudo = join(folder, 'sudo');
  writeFileSync(
    sudo,
    `#!/bin/sh\necho "$*" >> ${folder}/asked\necho 'sudo: a password is required' >&2\nexit ${code}\n`,
  );
  chmodSync(sudo, 0o755);
  return {
    env: { RUNNER_ENVIRONMENT: 'github-hosted', PATH: `${folder}:/usr/bin:/bin` },
    asked: () => readFileSync(join(folder, 'asked'), 'utf8'),
  };
}

describe('a container of its own for a normal user’s command', () => {
  test('is allowed on GitHub’s own runner, by sudo without a password', async () => {
    const { env, asked } = withSudo(0);
    const said: string[] = [];
    await allowUserNamespaces(env, (message) => said.push(message), FORBIDDEN);
    expect(asked()).toBe('-n sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n');
    expect(said).toHaveLength(1);
  });

  test('where sudo may not, the cause and the remedy are told', async () => {
    const { env } = withSudo(1);
    await expect(allowUserNamespaces(env, () => undefined, FORBIDDEN)).rejects.toMatchObject({
      message: expect.stringMatching(/userns is 1, and sudo cannot change it \(.*a password is required/),
      hint: 'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, before this step',
    });
  });

  test('somebody’s own machine is not changed', async () => {
    const { env } = withSudo(0);
    const own = { ...env, RUNNER_ENVIRONMENT: 'self-hosted' };
    await expect(allowUserNamespaces(own, () => undefined, FORBIDDEN)).rejects.toThrow(/is not ours to change/);
  });

  test('nothing is done for root, nor where nothing forbids it', async () => {
    for (const machine of [
      { uid: 0, userNamespaceSwitch: '1' },
      { uid: 1001, userNamespaceSwitch: '0' },
    ]) {
      await allowUserNamespaces({ PATH: '/nowhere' }, () => undefined, machine);
    }
    await allowUserNamespaces({ PATH: '/nowhere' }, () => undefined, { uid: 1001, userNamespaceSwitch: undefined });
  });
});

describe('a command that could not be frozen', () => {
  test('is known by a failure since it was to be, not by one of before', () => {
    const failed = { type: 'checkpoint-failed', atMs: 5, message: 'no space is left' } as const;
    expect(failureSince([failed], 5)).toBe('no space is left');
    expect(failureSince([failed], 6)).toBeUndefined();
    expect(failureSince([{ type: 'ready', atMs: 7, restoredGeneration: null }], 5)).toBeUndefined();
  });
});

describe('how long the post step waits', () => {
  test('after a cancellation: the five minutes that GitHub gives, less what the runner and other steps need', () => {
    expect(budget('cancelled', { jobEndsAtMs: 1e9 }, 1_000)).toBe(1_000 + 255_000);
  });

  test('after a step that timed out: what is left of the job', () => {
    expect(budget('failure', { jobEndsAtMs: 1e9 }, 1_000)).toBe(1e9 - 30_000);
    expect(budget('failure', { jobEndsAtMs: 0 }, 1_000)).toBe(256_000);
  });
});
