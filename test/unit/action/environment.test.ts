// SPDX-License-Identifier: Apache-2.0
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { cloudsHere } from '../../../src/action/clouds.js';
import { engineEnvironment, scrubPatterns } from '../../../src/action/environment.js';
import { appEnvironment } from '../../../src/container/app-env.js';
import { makeDirectory } from '../linux/support.js';

const ENV = {
  PATH: '/bin',
  'INPUT_GITHUB-TOKEN': 'ghs_1',
  STATE_engine: '{}',
  ACTIONS_RUNTIME_TOKEN: 'runtime',
  ACTIONS_RESULTS_URL: 'https://results/',
  RUNNER_TRACKING_ID: 'github_1',
  GITHUB_STATE: '/x',
  GITHUB_TOKEN: 'ghs_1',
  MY_OWN_NAME: 'ghs_1',
  CACHE_TOKEN: 'runtime',
  PHRASE: 'secret',
  AWS_SECRET_ACCESS_KEY: 'aws',
  GITHUB_SHA: 'abc',
};

describe('the environment', () => {
  test('the engine has no inputs, and not the mark by which the runner ends what is left', () => {
    const names = Object.keys(engineEnvironment(ENV, { GITHUB_OUTPUT: '/y' }));
    expect(names).not.toEqual(expect.arrayContaining(['INPUT_GITHUB-TOKEN']));
    for (const name of ['INPUT_GITHUB-TOKEN', 'STATE_engine', 'RUNNER_TRACKING_ID', 'GITHUB_STATE'])
      expect(names).not.toContain(name);
    expect(names).toEqual(expect.arrayContaining(['PATH', 'ACTIONS_RUNTIME_TOKEN', 'GITHUB_OUTPUT']));
  });

  test('no token of ours reaches the command, under whatever name', () => {
    const inputs = { githubToken: 'ghs_1', passphrase: 'secret', envScrub: ['AWS_*'] };
    const { unset } = appEnvironment({ env: ENV, scrub: scrubPatterns(ENV, inputs, 'cache:j'), fakeRoot: false });
    const kept = Object.keys(ENV).filter((name) => !unset.includes(name));
    expect(kept.sort()).toEqual(['GITHUB_SHA', 'PATH']);
  });

  test('what logs in to the images’ store is not the command’s, unless the user says so; what is of another store is', () => {
    const env = {
      ...ENV,
      AWS_ACCESS_KEY_ID: 'a',
      AWS_SESSION_TOKEN: 's',
      AWS_REGION: 'r',
      GOOGLE_APPLICATION_CREDENTIALS: '/g',
    };
    const hidden = (imageUrl: string, ...envScrub: string[]): string[] => {
      const inputs = { githubToken: '', passphrase: undefined, envScrub };
      const { unset } = appEnvironment({ env, scrub: scrubPatterns(env, inputs, imageUrl), fakeRoot: false });
      return unset.filter((name) => /^(?:AWS|GOOGLE)_/.test(name)).sort();
    };
    expect(hidden('s3://b/j')).toEqual(['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN']);
    expect(hidden('s3://b/j', '!AWS_*')).toEqual([]);
    expect(hidden('gs://b/j')).toEqual(['GOOGLE_APPLICATION_CREDENTIALS']);
    expect(hidden('file:/j')).toEqual([]);
    expect(hidden('cache:j')).toEqual([]);
  });

  test('the user’s patterns have the last word', () => {
    const inputs = { githubToken: 'ghs_1', passphrase: undefined, envScrub: ['!GITHUB_TOKEN'] };
    const { unset } = appEnvironment({ env: ENV, scrub: scrubPatterns(ENV, inputs, 'cache:j'), fakeRoot: false });
    expect(unset).not.toContain('GITHUB_TOKEN');
    expect(unset).toContain('MY_OWN_NAME');
  });
});

describe('whose machine a self-hosted runner is', () => {
  test.each([
    ['Amazon EC2', ['ec2']],
    ['Google', ['gce']],
    ['Microsoft Corporation', ['azure']],
    ['QEMU', []],
  ])('%s', (vendor, clouds) => {
    const path = join(makeDirectory(), 'sys_vendor');
    writeFileSync(path, `${vendor}\n`);
    expect(cloudsHere({ RUNNER_ENVIRONMENT: 'self-hosted' }, path)).toEqual(clouds);
    expect(cloudsHere({ RUNNER_ENVIRONMENT: 'github-hosted' }, path)).toEqual([]);
    expect(cloudsHere({}, '/nowhere')).toEqual([]);
  });
});
