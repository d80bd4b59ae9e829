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

/** The run, as its system sees it. */
export interface Attended {
  readonly lastAct: LastAct;
  /** Images get to a spool first, and nobody but the run brings them from there to where they belong. */
  readonly mustUpload: () => boolean;
}

/** To be called when everything of the run is done and its exit code known. Resolves to that to leave with; never rejects. */
export type LastAct = (code: number, isFrozen: boolean) => Promise<number>;

/** What a system is told and asked beside a run, from just before the application starts to the very end. */
export function attend({ system, run, requeueExitCode, signals, log }: Attendance): Attended {
  for (const name of signals) process.on(name, () => undefined);
  system.begin?.(run, log);
  const over = new AbortController();
  const mustUpload = (): boolean => run.spoolDirectory !== undefined && system.uploadsAfterwards?.() !== true;
  const inspection = system.inspect?.(requeueExitCode, over.signal).then(({ findings }) => {
    for (const { what, remedy } of findings) log.warn(`${what} (try: ${remedy})`);
  });
  const lastAct: LastAct = async (code, isFrozen) => {
    // Who finishes the upload is in an answer that a short run may not have had yet.
    if (code === requeueExitCode && run.spoolDirectory !== undefined) await inspection;
    over.abort();
    if (code !== requeueExitCode) return code;
    if (mustUpload()) await finishUpload(run, log);
    const { signal } = new AbortController();
    return (await system.runAgain?.(code, { run, log, signal, isFrozen })) ?? code;
  };
  return { lastAct, mustUpload };
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
