// SPDX-License-Identifier: Apache-2.0
import type { FastFreezeError } from '../../base/errors.js';
import type { Logger } from '../../base/log.js';
import { type App, startApp } from '../../container/app.js';
import type { Children } from '../../container/children.js';
import { WITHOUT_CAPABILITIES } from '../../container/own-ids.js';
import type { AppStdio, StdioOptions } from '../../container/stdio/app-stdio.js';
import { APP_TMP } from '../../container/temporary.js';
import type { Poller } from '../../linux/poller.js';
import { interruptByte } from '../../linux/terminal.js';
import type { SupervisorConfig } from '../config.js';
import { createProgressLine } from '../progress-line.js';
import { type Restored, restore } from '../restore.js';

/** What it takes to have an application. */
export interface AppStart {
  readonly config: SupervisorConfig;
  readonly log: Logger;
  readonly poller: Poller;
  readonly children: Children;
  /** Why temporary files have no place of the job's own; undefined where they have one. */
  readonly temporaryProblem: FastFreezeError | undefined;
  /** The key that would raise SIGINT was pressed, and SIGINT asks for a checkpoint. */
  readonly onInterrupt: () => void;
}

const START_TIMEOUT_MS = 30_000;
const SIGINT = 2;

/** Start the command that `run` was given, its streams being `stdio`. */
export async function startFromScratch(start: AppStart, stdio: AppStdio): Promise<App> {
  const { config, log, children } = start;
  const app = await startApp({
    prefix: appPrefix(config),
    plan: {
      command: config.command,
      ignoredSignals: config.ignoredSignals,
      ...environment(start),
      ...(config.openFilesLimit === undefined ? {} : { openFilesLimit: config.openFilesLimit }),
    },
    streams: stdio.start,
    children,
    timeoutMs: START_TIMEOUT_MS,
    // With ids of its own CRIU is not uid 0 to the kernel, which then lets it set no limits of the namespace at a restore.
    ownIpc: config.container && config.identity === undefined,
    onSharedIpc: (error) =>
      log.warn(
        `no IPC namespace for the application: what it has of System V IPC cannot be frozen (${error instanceof Error ? error.message : String(error)})`,
      ),
  });
  stdio.releaseAppEnds();
  log.info('Application is ready, started from scratch');
  return app;
}

/** Continue it from a generation of the job's image. */
export async function continueFrom(start: AppStart, generation: number): Promise<Restored> {
  const { config, log, poller, children, temporaryProblem } = start;
  const startedMs = performance.now();
  const line = createProgressLine();
  const restored = await restore(
    { config, stdioOptions: stdioOptions(start), poller, children, log, temporaryProblem },
    generation,
    line.show,
  ).finally(() => line.clear());
  for (const one of children.strangers(restored.app.pid)) {
    log.warn(
      `process ${one.pid} (${one.name}) came back outside the application's tree: it runs on, but the next checkpoint will be refused`,
    );
  }
  const seconds = (performance.now() - startedMs) / 1000;
  const mib = restored.rawBytes / 1048576;
  log.info(
    `Uncompressed image size is ${mib.toFixed(1)} MiB, rate: ${(mib / Math.max(seconds, 0.001)).toFixed(0)} MiB/s`,
  );
  log.info(`Application is ready, restore took ${seconds.toFixed(1)}s`);
  return restored;
}

export function stdioOptions({ config, poller, onInterrupt }: AppStart): StdioOptions {
  const { outer } = config;
  const settings = outer.settings === undefined ? undefined : Buffer.from(outer.settings, 'base64');
  const interrupt = settings === undefined ? 0 : interruptByte(settings);
  const isWanted = interrupt !== 0 && config.checkpointOnSignals.includes(SIGINT);
  return {
    poller,
    outer: {
      terminal: outer.terminal,
      background: outer.background,
      ...(settings === undefined ? {} : { settings }),
      ...(outer.windowSize === undefined ? {} : { windowSize: Buffer.from(outer.windowSize, 'base64') }),
      ...(outer.outputPath === undefined ? {} : { outputPath: outer.outputPath }),
      ...(outer.errorPath === undefined ? {} : { errorPath: outer.errorPath }),
    },
    ...(isWanted ? { inputFilter: (piece) => withoutInterrupt(piece, interrupt, onInterrupt) } : {}),
  };
}

/** The key that would raise SIGINT asks for a checkpoint instead; the application never sees it. */
function withoutInterrupt(piece: Buffer, interrupt: number, onInterrupt: () => void): Buffer {
  if (!piece.includes(interrupt)) return piece;
  onInterrupt();
  return Buffer.from(piece.filter((byte) => byte !== interrupt));
}

/** Where the application keeps its own ids we keep ours, and need the namespace's capabilities; it must not. */
export function appPrefix({ identity }: SupervisorConfig): readonly string[] {
  return identity === undefined ? [] : WITHOUT_CAPABILITIES;
}

function environment({ config, temporaryProblem }: AppStart): { setEnv: Record<string, string>; unsetEnv: string[] } {
  const { environment, threadPoolSize, container } = config;
  // We have one of our own, which the application must not see.
  const given = threadPoolSize === undefined ? {} : { UV_THREADPOOL_SIZE: threadPoolSize };
  const scrubbed = environment.unset.includes('UV_THREADPOOL_SIZE');
  const temporary = container && temporaryProblem === undefined ? { TMPDIR: APP_TMP } : {};
  const setEnv: Record<string, string> = { ...(scrubbed ? {} : given), ...temporary, ...environment.set };
  const unset = [...environment.unset, 'UV_THREADPOOL_SIZE', 'FF_NOFILE', 'FF_SIGIGN'];
  return { setEnv, unsetEnv: unset.filter((name) => !(name in setEnv)) };
}
