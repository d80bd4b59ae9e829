// SPDX-License-Identifier: Apache-2.0
import { writeSync } from 'node:fs';

/** How much is said: 0 the story, 1 its steps (`-v`), 2 everything (`-vv`). */
export type Verbosity = 0 | 1 | 2;

/** Lines for people, or one JSON object a line for programs (docs/json.md). */
export type LogFormat = 'text' | 'json';

export interface Logger {
  info(message: string): void;
  debug(message: string): void;
  trace(message: string): void;
  warn(message: string): void;
  /** `hint` says what to try. */
  error(message: string, hint?: string): void;
  readonly verbosity: Verbosity;
}

export interface LoggerOptions {
  /** The command, printed in each line: `[ff.run] (0.012s) message`. */
  readonly command: string;
  readonly verbosity: Verbosity;
  readonly format?: LogFormat;
  /** Start of the job's clock, milliseconds as of `performance.timeOrigin`. */
  readonly startedAtMs?: number;
  /** Where lines go; standard error by default, since standard output belongs to the application. */
  readonly write?: (line: string) => void;
}

type Level = 'error' | 'warn' | 'info' | 'debug' | 'trace';

const LEAST_VERBOSITY: Readonly<Record<Level, Verbosity>> = { error: 0, warn: 0, info: 0, debug: 1, trace: 2 };
const TEXT_PREFIX: Readonly<Record<Level, string>> = {
  error: 'Error: ',
  warn: 'Warning: ',
  info: '',
  debug: '',
  trace: '',
};

/** One line per message on standard error; never buffered, so that a dying process has said what it knew. */
export function createLogger(options: LoggerOptions): Logger {
  const { command, verbosity, format = 'text' } = options;
  const startedAtMs = options.startedAtMs ?? Date.now();
  const write = options.write ?? writeToStderr;
  const say = (level: Level, message: string, hint?: string): void => {
    if (LEAST_VERBOSITY[level] > verbosity) return;
    const now = new Date();
    const elapsedMs = now.getTime() - startedAtMs;
    if (format === 'json') {
      // An undefined hint is left out.
      write(`${JSON.stringify({ time: now.toISOString(), level, command, elapsedMs, message, hint })}\n`);
      return;
    }
    const head = `[ff.${command}] (${(elapsedMs / 1000).toFixed(3)}s) `;
    write(`${head}${TEXT_PREFIX[level]}${message}\n${hint === undefined ? '' : `${head}Try: ${hint}\n`}`);
  };
  return {
    verbosity,
    info: (message) => say('info', message),
    debug: (message) => say('debug', message),
    trace: (message) => say('trace', message),
    warn: (message) => say('warn', message),
    error: (message, hint) => say('error', message, hint),
  };
}

export const silentLogger: Logger = createLogger({ command: 'silent', verbosity: 0, write: () => undefined });

function writeToStderr(line: string): void {
  try {
    writeSync(2, line);
  } catch {
    // Nobody listens on standard error any more (EPIPE, EAGAIN): a log line is no reason to fail the job.
    return;
  }
}
