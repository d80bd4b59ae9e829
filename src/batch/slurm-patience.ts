// SPDX-License-Identifier: Apache-2.0
import { asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { pause } from '../notice/notice.js';

/** A controller that is being restarted is away for as long. */
const ATTEMPTS = 6;
const RETRY_MS = 5_000;

/** Do what Slurm must answer to, again when it does not. Rejects with its last word. */
export async function withPatience<T>(
  step: () => Promise<T>,
  log: Logger,
  { retryMs = RETRY_MS, signal = new AbortController().signal }: { retryMs?: number; signal?: AbortSignal } = {},
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await step();
    } catch (error) {
      if (attempt >= ATTEMPTS || signal.aborted) throw error;
      log.warn(`${asFastFreezeError(error, 'ask Slurm').message}; trying again in ${retryMs / 1000} s`);
      await pause(retryMs, signal);
    }
  }
}
