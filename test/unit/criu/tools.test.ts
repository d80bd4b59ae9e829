// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { refuseBrokenTools } from '../../../src/criu/tools.js';
import { askScript, moduleUrl } from '../linux/support.js';

const REPLACED = ['/usr/bin/solve', '/lib/x86_64-linux-gnu/libc.so.6', '/lib/x86_64-linux-gnu/libm.so.6'];

function refusal(criu: readonly string[], timeoutMs?: number): unknown {
  try {
    refuseBrokenTools(criu, REPLACED, timeoutMs);
    return undefined;
  } catch (error) {
    return error;
  }
}

describe('what a restore starts', () => {
  test('is no problem where it runs', () => {
    expect(refusal(['true'])).toBeUndefined();
  });

  test.each([
    [
      'fails',
      ['sh', '-c', 'echo "version GLIBC_2.99 not found" >&2; exit 1'],
      /exit code 1 \(version GLIBC_2\.99 not found\)$/,
    ],
    ['is killed', ['sh', '-c', 'kill -SEGV $$'], /SIGSEGV$/],
    ['is not there', ['/nowhere/criu'], /ENOENT/],
    ['hangs', ['sh', '-c', 'exec sleep 60'], /ETIMEDOUT/],
  ])('is refused where it %s, and the C library named', (_, criu, reason) => {
    expect(refusal(criu, 3_000)).toMatchObject({
      code: 'conflict',
      subject: '/lib/x86_64-linux-gnu/libc.so.6',
      reason: expect.stringMatching(reason),
      hint: expect.stringContaining('same container image'),
    });
  });

  test('is also the shell, for the scripts of CRIU', async () => {
    const script = `
      import { refuseBrokenTools } from '${moduleUrl('criu/tools.js')}';
      try { refuseBrokenTools(['true'], ['/opt/data']); } catch (error) { console.log(JSON.stringify([error.code, error.subject, error.reason])); }`;
    const user = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
    const broken = 'mount --bind /bin/false /bin/sh && exec "$@"';
    const answer = await askScript(script, ['unshare', ...user, '--mount', 'sh', '-c', broken, 'sh']);
    expect(answer).toEqual(['conflict', '/opt/data', expect.stringContaining('/bin/sh ended with exit code 1')]);
  });
});
