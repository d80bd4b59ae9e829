// SPDX-License-Identifier: Apache-2.0
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { SupervisorConfig } from './config.js';

/** Keep CRIU's log where a user finds it after the working directory has gone. */
export function keepLog(
  job: { readonly config: Pick<SupervisorConfig, 'jobName' | 'logDirectory'>; readonly log: Logger },
  logPath: string,
): string | undefined {
  const stamp = new Date().toISOString().replace(/[-:]/g, '').slice(0, 15);
  const kind = logPath.endsWith('restore.log') ? 'restore' : 'dump';
  const kept = join(job.config.logDirectory, `criu-${kind}-${job.config.jobName.replaceAll('/', '_')}-${stamp}.log`);
  try {
    mkdirSync(job.config.logDirectory, { recursive: true, mode: 0o700 });
    copyFileSync(logPath, kept);
    return kept;
  } catch (error) {
    job.log.debug(`CRIU's log could not be kept: ${asFastFreezeError(error, 'keep the log').message}`);
    return undefined;
  }
}
