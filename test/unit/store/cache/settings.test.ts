// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { readCacheSettings, refuseReadOnly, refuseWithoutMeans } from '../../../../src/store/cache/settings.js';
import { readToken } from '../../../../src/store/cache/token.js';

const RUNNER = {
  ACTIONS_RESULTS_URL: 'https://results/',
  ACTIONS_RUNTIME_TOKEN: 'opaque',
  ACTIONS_CACHE_SERVICE_V2: 'True',
  GITHUB_SERVER_URL: 'https://github.com',
  PATH: process.env['PATH'],
};

const tokenOf = (payload: object): string => `h.${Buffer.from(JSON.stringify(payload)).toString('base64url')}.s`;

describe('settings', () => {
  test('come from the runner', () => {
    expect(readCacheSettings('cache:a', { ...RUNNER, RUNNER_TEMP: '/t', FF_CACHE_LIMIT_GB: '25' })).toEqual({
      stagingDirectory: '/var/tmp',
      totalBytes: 25 * 2 ** 30,
      retryMs: 120_000,
      settleMs: 105_000,
    });
    expect(readCacheSettings('cache:a', { ...RUNNER, TMPDIR: '/u', FF_STORE_RETRY_S: '3' })).toEqual({
      stagingDirectory: '/u',
      totalBytes: 10 * 2 ** 30,
      retryMs: 3_000,
      settleMs: 105_000,
    });
  });

  test.each([
    [{ TMPDIR: '/u' }, '/u'],
    [{ TMPDIR: '/t/../u', RUNNER_TEMP: '/t' }, '/t/../u'],
    [{ TMPDIR: '/tt', RUNNER_TEMP: '/t' }, '/tt'],
    [{ TMPDIR: '/t/x/', RUNNER_TEMP: '/t/' }, '/var/tmp'],
    [{ TMPDIR: '/t', RUNNER_TEMP: '/t' }, '/var/tmp'],
    [{ TMPDIR: 'here' }, '/var/tmp'],
  ])('with %j objects are put together in %s: not where the runner clears up', (env, path) => {
    expect(readCacheSettings('cache:a', { ...RUNNER, ...env }).stagingDirectory).toBe(path);
  });

  test.each([
    [{}, 'ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN are not set'],
    [{ ...RUNNER, ACTIONS_RUNTIME_TOKEN: '' }, 'ACTIONS_RUNTIME_TOKEN is not set'],
    [{ ...RUNNER, ACTIONS_CACHE_SERVICE_V2: undefined }, 'only the old cache service'],
    [{ ...RUNNER, GITHUB_SERVER_URL: 'https://git.corp.example' }, 'only the old cache service'],
    [{ ...RUNNER, FF_CACHE_LIMIT_GB: 'lots' }, 'FF_CACHE_LIMIT_GB=lots'],
    [{ ...RUNNER, FF_CACHE_LIMIT_GB: '0' }, 'FF_CACHE_LIMIT_GB=0'],
  ])('%j is refused: %s', (env, text) => {
    expect(() => readCacheSettings('cache:a', env)).toThrow(text);
  });

  test('a cache that this run may not write, or only write, is refused', () => {
    const token = (permission: number): string =>
      tokenOf({ ac: JSON.stringify([{ Scope: 's', Permission: permission }]) });
    expect(() => refuseReadOnly('cache:a', { ...RUNNER, ACTIONS_RUNTIME_TOKEN: token(1) })).toThrow('may only read');
    expect(() => refuseReadOnly('cache:a', { ...RUNNER, ACTIONS_CACHE_MODE: 'Read ' })).toThrow('cache-mode is read');
    expect(() => refuseReadOnly('cache:a', { ...RUNNER, ACTIONS_CACHE_MODE: 'write-only' })).toThrow('cache-mode');
    refuseReadOnly('cache:a', { ...RUNNER, ACTIONS_RUNTIME_TOKEN: token(3), ACTIONS_CACHE_MODE: 'write' });
    refuseReadOnly('cache:a', RUNNER);
  });

  test('without its tools, or with a token that has expired, nothing is looked up: what is there would not be found', () => {
    refuseWithoutMeans('cache:a', RUNNER, 0);
    expect(() => refuseWithoutMeans('cache:a', { ...RUNNER, PATH: '/nowhere' }, 0)).toThrow('is not on PATH');
    const expired = { ...RUNNER, ACTIONS_RUNTIME_TOKEN: tokenOf({ exp: 1000 }) };
    expect(() => refuseWithoutMeans('cache:a', expired, 1_000_000)).toThrow('has expired (1970-01-01T00:16:40.000Z)');
    refuseWithoutMeans('cache:a', expired, 999_999);
  });

  test.each(['', 'a', 'a.b.c', `h.${Buffer.from('[]').toString('base64url')}.s`, tokenOf({ ac: 'x', exp: 'y' })])(
    'a token that says nothing (%j) is let through',
    (token) => {
      expect(readToken(token)).toEqual({ canWrite: true, expiresAtMs: undefined });
    },
  );
});
