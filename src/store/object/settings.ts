// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';

// How the settings of the clouds are read out of environment variables.

/** An empty variable is none. */
export function given(env: NodeJS.ProcessEnv, name: string): string | undefined {
  const value = env[name];
  return value === '' ? undefined : value;
}

/** `team=a,job=b c`. Throws `usage`. */
export function pairs(name: string, text: string): [string, string][] {
  return text.split(',').map((pair) => {
    const [, key, value] = /^([^=]+)=(.*)$/u.exec(pair.trim()) ?? [];
    if (key === undefined || value === undefined) throw wrongSetting(name, text, 'name=value,name=value');
    return [key, value];
  });
}

export function wrongSetting(name: string, value: string, wanted: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: `${name}=${value}`,
    reason: 'it is not a value that it can have',
    hint: `give ${wanted}`,
  });
}
