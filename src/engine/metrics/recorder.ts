// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';

/** Hands events to a program of the user's, one process each, in order. Nothing waits for it but `finish`. */
export interface Recorder {
  record(json: string): void;
  /** Resolves when every event has been recorded or given up, at the latest after `timeoutMs`. */
  finish(timeoutMs: number): Promise<void>;
}

export interface RecorderOptions {
  /** The program's path, or its name in PATH. */
  readonly program: string;
  readonly warn: (message: string) => void;
  /** For tests. */
  readonly processTimeoutMs?: number;
}

/** One that hangs must not hold up the events behind it for ever. */
const PROCESS_TIMEOUT_MS = 30_000;
/** Of a job that checkpoints every second with a recorder that hangs: the oldest go. */
const MAX_WAITING = 1_000;
const MAX_STDERR_CHARACTERS = 500;

export function createRecorder(options: RecorderOptions): Recorder {
  const { program, warn, processTimeoutMs = PROCESS_TIMEOUT_MS } = options;
  const waiting: string[] = [];
  let child: ChildProcess | undefined;
  let lost = 0;
  let idle: (() => void) | undefined;

  const next = (): void => {
    if (child !== undefined) return;
    const json = waiting.shift();
    if (json === undefined) {
      idle?.();
      return;
    }
    start(json);
  };

  const start = (json: string): void => {
    let one: ChildProcess;
    try {
      // Its own process group: Ctrl-C at the job's terminal is not meant for it, and its end is that of all it has started.
      one = spawn(program, [json], { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
    } catch (error) {
      // Some reasons are thrown, others come as an event.
      warn(cannotStart(program, error));
      setImmediate(next);
      return;
    }
    child = one;
    let said = '';
    one.stderr?.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-MAX_STDERR_CHARACTERS)));
    const timer = setTimeout(() => {
      warn(`the metrics recorder ${program} took over ${processTimeoutMs / 1000} s and was ended`);
      endGroup(one);
    }, processTimeoutMs);
    const done = (failure: string | undefined): void => {
      if (child !== one) return;
      child = undefined;
      clearTimeout(timer);
      one.stderr?.destroy();
      if (failure !== undefined) warn(failure);
      next();
    };
    one.once('error', (error) => done(cannotStart(program, error)));
    one.once('exit', (code, signal) => {
      const how = signal ?? `exit code ${code ?? ''}`;
      // What it said before its end may still be in the pipe.
      setImmediate(() =>
        done(code === 0 ? undefined : `the metrics recorder ${program} ended with ${how}: ${said.trim()}`),
      );
    });
  };

  return {
    record(json) {
      if (waiting.length >= MAX_WAITING) {
        waiting.shift();
        if (lost++ === 0) warn(`the metrics recorder ${program} is too slow: events are left out`);
      }
      waiting.push(json);
      next();
    },
    async finish(timeoutMs) {
      if (child === undefined && waiting.length === 0) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          warn(`the metrics recorder ${program} has not recorded ${waiting.length + 1} events: it takes too long`);
          waiting.length = 0;
          if (child !== undefined) endGroup(child);
          resolve();
        }, timeoutMs);
        idle = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    },
  };
}

function endGroup(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It has ended by itself, with all that it had started.
    child.kill('SIGKILL');
  }
}

function cannotStart(program: string, error: unknown): string {
  const shell = /\s/.test(program) ? '; FF_METRICS_RECORDER is the path of one program, not a shell command' : '';
  return `the metrics recorder ${program} could not be started: ${error instanceof Error ? error.message : String(error)}${shell}`;
}
