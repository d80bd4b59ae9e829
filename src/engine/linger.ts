// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';

/**
 * `FF_LINGER_MS`: how long a job stays after whoever asked for its last checkpoint has ended. Throws `usage`. Where the job is a
 * container's first process, Docker can tell how a command beside it ended only while the container is there.
 */
export function readLinger(env: NodeJS.ProcessEnv): { readonly lingerMs?: number } {
  const text = env['FF_LINGER_MS'] ?? '';
  if (text === '') return {};
  const lingerMs = Number(text);
  if (/^\d+$/.test(text) && lingerMs <= MAX_LINGER_MS) return { lingerMs };
  throw new FastFreezeError({
    code: 'usage',
    op: 'use',
    subject: `FF_LINGER_MS=${text}`,
    reason: 'it is not a number of milliseconds',
    hint: `give 0 to ${MAX_LINGER_MS}`,
  });
}

const MAX_LINGER_MS = 60_000;
