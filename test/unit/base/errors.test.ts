// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import {
  FastFreezeError,
  asFastFreezeError,
  fromErrorRecord,
  hasErrno,
  isSystemError,
  toErrorRecord,
} from '../../../src/base/errors.js';
import { SystemError } from '../../../src/linux/libc.js';

const full = { code: 'store', op: 'write', subject: '/x', reason: 'it is full', hint: 'make room' } as const;

function thrown(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

describe('an error', () => {
  test('says what was done, to what, and why', () => {
    expect(new FastFreezeError(full).message).toBe('cannot write /x: it is full');
    expect(new FastFreezeError({ code: 'app', op: 'start', reason: 'no' }).message).toBe('cannot start: no');
    expect(new FastFreezeError(full)).toMatchObject({ name: 'FastFreezeError', passing: false, hint: 'make room' });
  });

  test('crosses a socket as JSON and comes back', () => {
    for (const error of [new FastFreezeError(full), new FastFreezeError({ code: 'app', op: 'start', reason: 'no' })]) {
      const back = fromErrorRecord(
        JSON.parse(JSON.stringify(toErrorRecord(error))) as ReturnType<typeof toErrorRecord>,
      );
      expect(toErrorRecord(back)).toEqual(toErrorRecord(error));
      expect(back.message).toBe(error.message);
    }
  });

  test('of ours passes through; a system error is the store’s, anything else a bug', () => {
    const ours = new FastFreezeError(full);
    expect(asFastFreezeError(ours, 'other')).toBe(ours);
    const missing = thrown(() => readFileSync('/no/such/file'));
    expect(isSystemError(missing)).toBe(true);
    expect(hasErrno(missing, 'EIO', 'ENOENT')).toBe(true);
    expect(asFastFreezeError(missing, 'read', '/x')).toMatchObject({
      code: 'store',
      message: 'cannot read /x: it does not exist (ENOENT)',
      cause: missing,
    });
    const native = new SystemError('flock', 28);
    expect(asFastFreezeError(native, 'lock')).toMatchObject({ code: 'store', reason: 'no space is left (ENOSPC)' });
    expect(asFastFreezeError(new SystemError('flock', 35), 'lock').reason).toBe('EDEADLK in flock');
    for (const odd of [new TypeError('x is not y'), 'x is not y']) {
      expect(asFastFreezeError(odd, 'think')).toMatchObject({ code: 'internal', reason: 'x is not y' });
    }
    for (const odd of [undefined, null, 5, {}]) {
      expect(asFastFreezeError(odd, 'think').code).toBe('internal');
      expect(hasErrno(odd, 'ENOENT')).toBe(false);
    }
  });
});
