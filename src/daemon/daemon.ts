// SPDX-License-Identifier: Apache-2.0
import { asFastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { EXIT } from '../engine/exit-codes.js';
import { ignoredSignals } from '../engine/run/signals.js';
import { signalNumber } from '../linux/process.js';
import type { Environment } from './child.js';
import { Controller } from './controller.js';
import { createHttpServer } from './http.js';
import { type Address, type Listening, listen } from './listen.js';
import type { RunRequest } from './request.js';
import { writeStatusFile } from './status-file.js';

export interface DaemonOptions {
  readonly address: Address;
  readonly token?: string;
  /** A run to begin with. */
  readonly first?: RunRequest;
  readonly exitWithRun: boolean;
  readonly statusPath?: string;
  readonly env: Environment;
  /** What only a run is given of the environment. */
  readonly runEnv: Environment;
  readonly log: Logger;
}

/** These end the daemon, after the job if there is one. */
const ENDING = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const satisfies readonly NodeJS.Signals[];
/** These are for the job. */
const PASSED_ON = ['SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const satisfies readonly NodeJS.Signals[];

/** Listen, and serve until a signal or, with `exitWithRun`, the end of a run. Resolves to the exit code. */
export async function runDaemon(options: DaemonOptions): Promise<number> {
  const { log, statusPath } = options;
  let finish: (exitCode: number) => void = () => undefined;
  const over = new Promise<number>((resolve) => (finish = resolve));
  let ending = false;
  const controller = new Controller({
    log,
    env: options.env,
    runEnv: { ...options.env, ...options.runEnv },
    onState: (state) => {
      if (statusPath !== undefined) tryWrite(statusPath, state, log);
    },
    onRunEnd: ({ exitCode }) => {
      if (ending || options.exitWithRun) finish(exitCode);
    },
  });
  const forget = catchSignals((name, ends) => {
    const hasJob = controller.signal(name);
    if (!ends) return;
    ending = true;
    controller.refuseRuns();
    log.info(hasJob ? `${name}: passed on to the job; the daemon ends after it` : `${name}: ending`);
    if (!hasJob) finish(0);
  });
  const http = createHttpServer({ controller, log, ...(options.token === undefined ? {} : { token: options.token }) });
  let listening: Listening | undefined;
  try {
    if (statusPath !== undefined) writeStatusFile(statusPath, 'standby');
    listening = await listen(http.server, options.address);
    log.info(`Listening on ${listening.where}`);
    // A connection that cannot be taken, for want of descriptors say, is no reason to leave a job alone.
    http.server.on('error', (error) => log.warn(`cannot take a connection: ${error.message}`));
    if (options.first !== undefined) {
      begin(controller, options.first, log, () => {
        if (options.exitWithRun) finish(EXIT.failed);
      });
    }
    return await over;
  } finally {
    controller.refuseRuns();
    listening?.remove();
    await controller.close();
    await http.close();
    forget();
  }
}

/** Nobody waits for its answer: how it went goes to the log, and to `GET /status`. */
function begin(controller: Controller, request: RunRequest, log: Logger, failed: () => void): void {
  controller.run(request).catch((error: unknown) => {
    const known = asFastFreezeError(error, 'start the first run');
    log.error(known.message, known.hint);
    failed();
  });
}

function tryWrite(path: string, state: Parameters<typeof writeStatusFile>[1], log: Logger): void {
  try {
    writeStatusFile(path, state);
  } catch (error) {
    log.warn(asFastFreezeError(error, 'write the status file').message);
  }
}

/** One that our caller ignores (nohup) ends nobody; the job ignores it by itself. Returns what lets go of them again. */
function catchSignals(on: (name: NodeJS.Signals, ends: boolean) => void): () => void {
  const ignored = ignoredSignals();
  const handlers = [...ENDING, ...PASSED_ON].map((name) => {
    const ends = (ENDING as readonly string[]).includes(name) && !ignored.includes(signalNumber(name) ?? 0);
    const handler = (): void => on(name, ends);
    process.on(name, handler);
    return [name, handler] as const;
  });
  return () => {
    for (const [name, handler] of handlers) process.off(name, handler);
  };
}
