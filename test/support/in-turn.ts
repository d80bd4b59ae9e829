// SPDX-License-Identifier: Apache-2.0
import { test } from '@jest/globals';
import type { Identity } from './bed.js';
import { FULL } from './random.js';

/**
 * The `it` of a file: `test` for what does not depend on who runs it: at full length root and a normal user both do, in `npm test` one of them does,
 * always the same one, told by the test's name.
 */
export function inTurn(identity: Identity): (name: string, body: () => Promise<void>, timeoutMs?: number) => void {
  return (name, body, timeoutMs) => {
    if (FULL || whose(name) === identity) test(name, body, timeoutMs);
  };
}

function whose(name: string): Identity {
  const sum = Buffer.from(name).reduce((total, byte) => total + byte, 0);
  return sum % 2 === 0 ? 'root' : 'user';
}
