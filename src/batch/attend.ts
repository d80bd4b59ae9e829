// SPDX-License-Identifier: Apache-2.0
import { asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { emptySpool } from '../engine/spool.js';
import type { BatchRun, BatchSystem } from './system.js';

export interface Attendance {
  readonly system: BatchSystem;
  readonly run: BatchRun;
  readonly requeueExitCode: number;
  /** Notices: one that comes when the run is over must not kill us before the last act. */
  readonly signals: readonly NodeJS.Signals[];
  readonly log: Logger;
}

/** To be called when everything of the run is done and its exit code known. Resolves to that to leave with; never rejects. */
export type LastAct = (code: number, isFrozen: boolean) => Promise<number>;

/** What a system is told and asked beside a run, from just before the application starts to the very end. */
export function attend({ system, run, requeueExitCode, signals, log }: Attendance): LastAct {
  for (const name of signals) process.on(name, () => undefined);
  system.begin?.(run, log);
  const over = new AbortController();
  void system.inspect?.(requeueExitCode, over.signal).then(({ findings }) => {
    for (const { what, remedy } of findings) log.warn(`${what} (try: ${remedy})`);
  });
  return async (code, isFrozen) => {
    over.abort();
    if (code !== requeueExitCode) return code;
    if (system.uploadsAfterwards?.() !== true) await finishUpload(run, log);
    const { signal } = new AbortController();
    return (await system.runAgain?.(code, { run, log, signal, isFrozen })) ?? code;
  };
}

/** The next attempt may be on another machine, which has no such spool; and with a container goes all that is in it. */
async function finishUpload({ spoolDirectory: directory, imageUrl: url, keep }: BatchRun, log: Logger): Promise<void> {
  if (directory === undefined) return;
  try {
    await emptySpool({ directory, url, keep, log: (message) => log.info(message) });
  } catch (error) {
    const { message, hint } = asFastFreezeError(error, 'empty the spool');
    log.error(`${message}. A next run that is not on this machine continues from an older image`, hint);
  }
}
