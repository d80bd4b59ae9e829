// SPDX-License-Identifier: Apache-2.0
import { error as annotateError, setOutput } from '@actions/core';
import { EXIT_FAILED } from './outcome.js';

/**
 * Looked at before anything else is loaded: what is native in that would not even load elsewhere. Undefined where a command can be frozen;
 * else that it cannot is said, and this is the exit code.
 */
export function refusePlatform(): number | undefined {
  const { platform, arch } = process;
  if (platform === 'linux' && arch === 'x64') return undefined;
  const reason = `cannot run on ${platform}-${arch}: only Linux on x64 can be frozen. Try: runs-on: ubuntu-24.04`;
  annotateError(reason, { title: 'fastfreeze' });
  setOutput('status', 'failed');
  for (const name of ['completed', 'ran', 'restored']) setOutput(name, 'false');
  return EXIT_FAILED;
}
