// SPDX-License-Identifier: Apache-2.0
import { writeSync } from 'node:fs';

/** How much is said: 0 the story, 1 its steps (`-v`), 2 everything (`-vv`). */
export type Verbosity = 0 | 1 | 2;

export interface Logger {
  info(message: string): void;
  debug(message: string): void;
  trace(message: string): void;
  warn(message: string): void;
  error(message: string): void;
  readonly verbosity: Verbosity;
}

export interface LoggerOptions {
  /** The command, printed in each line: `[ff.run] (0.012s) message`. */
  readonly command: string;
  readonly verbosity: Verbosity;
  /** Start of the job's clock, milliseconds as of `performance.timeOrigin`. */
  readonly startedAtMs?: number;
  /** Where lines go; standard error by default, since standard output belongs to the application. */
  readonly write?: (line: string) => void;
}

/** One line per message on standard error; never buffered, so that a dying process has said what it knew. */
export function createLogger(options: LoggerOptions): Logger {
  const startedAtMs = options.startedAtMs ?? Date.now();
  const write = options.write ?? writeToStderr;
  const say = (level: Verbosity, prefix: string, message: string): void => {
    if (level > options.verbosity) return;
    const seconds = ((Date.now() - startedAtMs) / 1000).toFixed(3);
    write(`[ff.${options.command}] (${seconds}s) ${prefix}${message}\n`);
  };
  return {
    verbosity: options.verbosity,
    info: (message) => say(0, '', message),
    debug: (message) => say(1, '', message),
    trace: (message) => say(2, '', message),
    warn: (message) => say(0, 'Warning: ', message),
    error: (message) => say(0, 'Error: ', message),
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
