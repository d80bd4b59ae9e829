// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { FastFreezeError, hasErrno } from '../base/errors.js';
import { startTicks } from './deadline.js';
import { type EngineTask, LAST_TRY, OUTPUT_FILE, readEvents } from './engine-task.js';

/** For the engine to begin, on a machine that is busy: less than main has after a signal. One that still cannot tell is told all the same. */
const BEGIN_MS = 3_000;
const LOOK_MS = 20;

/** Enough to find the engine again from another step. */
export interface EngineHandle {
  readonly pid: number;
  /** Of its start, since a PID may be given to another process. */
  readonly ticks: number;
  readonly directory: string;
}

/**
 * Start the engine in a session of its own, with its output in a file: neither signals to this step nor its end reach it, and nothing that
 * it holds keeps the step from ending.
 */
export async function startEngine(
  task: EngineTask,
  options: { readonly cwd: string; readonly env: NodeJS.ProcessEnv },
): Promise<EngineHandle> {
  const output = openSync(join(task.directory, OUTPUT_FILE), 'a', 0o600);
  const child = spawn(
    process.execPath,
    ['--no-warnings', fileURLToPath(new URL('./engine-main.js', import.meta.url))],
    {
      stdio: ['ignore', output, output, 'pipe'],
      detached: true,
      ...options,
    },
  );
  closeSync(output);
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => reject(cannotStart(options.cwd, error)));
  });
  const channel = child.stdio[3] as Writable;
  await new Promise<void>((resolve, reject) => {
    channel.once('error', reject);
    channel.end(JSON.stringify(task), resolve);
  });
  child.unref();
  const { pid = -1 } = child;
  return { pid, ticks: startTicks(pid) ?? -1, directory: task.directory };
}

export function isAlive({ pid, ticks }: EngineHandle): boolean {
  return startTicks(pid) === ticks;
}

/**
 * Asks the engine to freeze the command and to end; nothing where it has ended. The signal would kill a process that has only just begun:
 * that it listens is waited for.
 */
export async function tellToLeave(engine: EngineHandle): Promise<void> {
  const untilMs = Date.now() + BEGIN_MS;
  while (readEvents(engine.directory).length === 0 && isAlive(engine) && Date.now() < untilMs) await sleep(LOOK_MS);
  send(engine, 'SIGTERM');
}

/**
 * Tells the engine that the time is up: what it is writing is still finished, but it does not begin again, and ends the command where it
 * could not be frozen.
 */
export function tellTimeIsUp(engine: EngineHandle): void {
  send(engine, LAST_TRY);
}

function send(engine: EngineHandle, signal: NodeJS.Signals): void {
  if (!isAlive(engine)) return;
  try {
    process.kill(engine.pid, signal);
  } catch (error) {
    if (!hasErrno(error, 'ESRCH')) throw error;
  }
}

function cannotStart(cwd: string, error: Error): FastFreezeError {
  const missing = hasErrno(error, 'ENOENT');
  return new FastFreezeError({
    code: 'usage',
    op: 'start in',
    subject: cwd,
    reason: missing ? 'there is no such directory' : error.message,
    hint: 'check working-directory; actions/checkout must come before',
    cause: error,
  });
}
