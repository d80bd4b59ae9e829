// SPDX-License-Identifier: Apache-2.0
import { unshareCommand } from '../../../linux/unshare-command.js';
import { runTool, whyFailed } from '../tool.js';
import { compareVersions } from '../version.js';
import type { ExamineOptions } from './examine.js';
import type { Row } from './row.js';
import { fail, ok } from './row.js';

/** The first with --monotonic and --boottime. */
const OLDEST = '2.36';
const ASK_TIMEOUT_MS = 10_000;

/** `unshare` makes the containers. */
export async function examineUtilLinux(options: ExamineOptions): Promise<Row> {
  const signal = options.signal === undefined ? {} : { signal: options.signal };
  const shown = await runTool([...unshareCommand(), '--version'], {
    timeoutMs: ASK_TIMEOUT_MS,
    env: options.env,
    ...signal,
  });
  const version = /util-linux (\d+(?:\.\d+)*)/.exec(shown.stdout)?.[1];
  if (version === undefined) {
    return fail('util-linux', `no unshare of util-linux: ${whyFailed(shown)}`, 'install the package util-linux');
  }
  if (compareVersions(version, OLDEST) >= 0) return ok('util-linux', version);
  return fail('util-linux', `${version} is too old`, `install util-linux ${OLDEST} or later`);
}
