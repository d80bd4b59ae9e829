// SPDX-License-Identifier: Apache-2.0
import { homedir } from 'node:os';

/** The user's home directory. A container's user may have no entry in the user database; Docker then says `/`, and so do we. */
export function homeDirectory(env: NodeJS.ProcessEnv): string {
  const named = env['HOME'];
  if (named !== undefined && named !== '') return named;
  try {
    return homedir();
  } catch {
    return '/';
  }
}
