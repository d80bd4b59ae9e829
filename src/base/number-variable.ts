// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from './errors.js';

/** A variable that holds a whole number of some unit, 0 to `max`; undefined where it is not set. Throws `usage` for anything else. */
export function numberVariable(env: NodeJS.ProcessEnv, name: string, unit: string, max: number): number | undefined {
  const text = env[name] ?? '';
  if (text === '') return undefined;
  const number = Number(text);
  if (/^\d+$/.test(text) && number <= max) return number;
  throw new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: `${name}=${text}`,
    reason: `it is not a number of ${unit}`,
    hint: `give 0 to ${max}`,
  });
}
