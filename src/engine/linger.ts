// SPDX-License-Identifier: Apache-2.0
import { numberVariable } from '../base/number-variable.js';

/**
 * `FF_LINGER_MS`: how long a job stays after whoever asked for its last checkpoint has ended. Throws `usage`. Where the job is a
 * container's first process, Docker can tell how a command beside it ended only while the container is there.
 */
export function readLinger(env: NodeJS.ProcessEnv): { readonly lingerMs?: number } {
  const lingerMs = numberVariable(env, 'FF_LINGER_MS', 'milliseconds', MAX_LINGER_MS);
  return lingerMs === undefined ? {} : { lingerMs };
}

const MAX_LINGER_MS = 60_000;
