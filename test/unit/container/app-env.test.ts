// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { appEnvironment, wrongPatterns } from '../../../src/container/app-env.js';
import { FastFreezeError } from '../../../src/base/errors.js';

function result(env: Record<string, string>, scrub: string[] = [], fakeRoot = false): Record<string, string> {
  const { set, unset } = appEnvironment({ env, scrub, fakeRoot });
  return Object.fromEntries(Object.entries({ ...env, ...set }).filter(([name]) => !unset.includes(name)));
}

const ALWAYS = { FASTFREEZE: '1', UV_USE_IO_URING: '0' };

describe('the environment of the application', () => {
  test('is that of run, with a mark, and without io_uring unless the caller says otherwise', () => {
    expect(result({ HOME: '/h', EMPTY: '' })).toEqual({ HOME: '/h', EMPTY: '', ...ALWAYS });
    expect(result({ UV_USE_IO_URING: '1' })).toEqual({ UV_USE_IO_URING: '1', FASTFREEZE: '1' });
  });

  test('has FF_APP_* under their own names, and only there', () => {
    const env = {
      PATH: '/bin',
      LD_LIBRARY_PATH: '/ours',
      FF_APP_PATH: '/app/bin',
      FF_APP_LD_LIBRARY_PATH: '/app/lib',
      FF_APP_INJECT_LD_PRELOAD: 'a.so:b.so',
      FF_APP_INJECT_FF_APP_PATH: 'kept',
      FF_METRICS_RECORDER: '/m',
    };
    expect(result(env)).toEqual({
      PATH: '/app/bin',
      LD_LIBRARY_PATH: '/app/lib',
      LD_PRELOAD: 'a.so:b.so',
      FF_APP_PATH: 'kept',
      FF_METRICS_RECORDER: '/m',
      ...ALWAYS,
    });
  });

  test('has the switches of a narrower CPU, in addition to what the application has of them', () => {
    const cpu = { baseline: 'host', masked: ['aes'], features: [] };
    const env = {
      FF_APP_VIRT_CPUID_MASK: 'aes',
      OPENSSL_ia32cap: ':0',
      FF_APP_INJECT_JAVA_TOOL_OPTIONS: '-Xmx1g',
      AWS_X: '',
    };
    const made = appEnvironment({ env, scrub: ['AWS_*'], fakeRoot: false, cpu });
    expect(made).toEqual({
      set: {
        ...ALWAYS,
        JAVA_TOOL_OPTIONS: '-XX:+IgnoreUnrecognizedVMOptions -XX:UseAVX=0 -XX:-UseAES -Xmx1g',
        DOTNET_EnableAES: '0',
        DOTNET_EnableVAES: '0',
        DOTNET_EnableAVX10v1: '0',
        NPY_DISABLE_CPU_FEATURES: 'AVX512_ICL AVX512_SPR',
      },
      unset: ['AWS_X', 'FF_APP_INJECT_JAVA_TOOL_OPTIONS', 'FF_APP_VIRT_CPUID_MASK'],
      kept: ['OPENSSL_ia32cap'],
    });
    // What is scrubbed is not there to be kept.
    const scrubbed = appEnvironment({ env, scrub: ['OPENSSL_*'], fakeRoot: false, cpu });
    expect(scrubbed.set).toMatchObject({ OPENSSL_ia32cap: '~0x200000000000000:~0x20000000000' });
    expect(scrubbed.kept).toEqual([]);
  });

  test.each(['FF_APP_PAHT', 'FF_APP_INJECT_', 'FF_APP_'])('refuses %s, which can only be a mistake', (name) => {
    expect(() => result({ [name]: 'x' })).toThrow(FastFreezeError);
    expect(() => result({ [name]: 'x' })).toThrow(`cannot understand the variable ${name}: there is none of this name`);
  });

  test('lacks what an action’s step has beside, on a runner only', () => {
    const env = {
      INPUT_RUN: 'x',
      'INPUT_GITHUB-TOKEN': 't',
      STATE_job: 's',
      GITHUB_TOKEN: 't',
      GH_TOKEN: 't',
      RUNNER_ADMIN_TOKEN: 't',
      RUNNER_TEMP: '/t',
      HF_TOKEN: 'mine',
      GITHUB_REF: 'r',
    };
    expect(result(env)).toEqual({ ...env, ...ALWAYS });
    const kept = { RUNNER_TEMP: '/t', HF_TOKEN: 'mine', GITHUB_REF: 'r', GITHUB_ACTIONS: 'true', ...ALWAYS };
    expect(result({ ...env, GITHUB_ACTIONS: 'true' })).toEqual(kept);
    expect(result({ ...env, GITHUB_ACTIONS: 'true' }, ['!GH_TOKEN'])).toEqual({ ...kept, GH_TOKEN: 't' });
  });

  test('lacks what is scrubbed: the runner’s tokens always, the last pattern that fits decides', () => {
    const env = {
      ACTIONS_RUNTIME_TOKEN: 't',
      ACTIONS_CACHE_URL: 'u',
      AWS_ACCESS_KEY_ID: 'i',
      AWS_REGION: 'r',
      'A.B': 'dot',
      AXB: 'no dot',
      MULTI: 'a\nb',
    };
    const plain = { AXB: 'no dot', MULTI: 'a\nb', ...ALWAYS };
    expect(result(env)).toEqual({ ...plain, AWS_ACCESS_KEY_ID: 'i', AWS_REGION: 'r', 'A.B': 'dot' });
    expect(result(env, ['AWS_*', '!AWS_REGION', 'A.B', '!ACTIONS_CACHE_*'])).toEqual({
      ...plain,
      AWS_REGION: 'r',
      ACTIONS_CACHE_URL: 'u',
    });
    expect(result(env, ['*'])).toEqual(ALWAYS);
    expect(result(env, ['!*'])).toEqual({ ...env, ...ALWAYS });
  });

  test('has what is injected, whatever is scrubbed', () => {
    expect(result({ ACTIONS_X: '1', FF_APP_INJECT_ACTIONS_X: '2' }, ['*'])).toEqual({ ACTIONS_X: '2', ...ALWAYS });
  });

  test('tells programs that it is no root of the machine, where it takes itself for one', () => {
    const remedies = {
      TAR_OPTIONS: '--no-same-owner',
      OMPI_ALLOW_RUN_AS_ROOT: '1',
      OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1',
    };
    expect(result({}, [], true)).toEqual({ ...ALWAYS, ...remedies });
    expect(result({ TAR_OPTIONS: '-v' }, [], true)).toEqual({ ...ALWAYS, ...remedies, TAR_OPTIONS: '-v' });
  });
});

test('patterns that fit no name are told', () => {
  expect(wrongPatterns(['A', 'A_*', '!B', '*', '', '!', 'A=b', '!!C', 'D\0'])).toEqual(['', '!', 'A=b', '!!C', 'D\0']);
});
