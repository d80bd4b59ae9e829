// SPDX-License-Identifier: Apache-2.0
import { fstatSync, writeSync } from 'node:fs';
import { toErrorRecord } from '../base/errors.js';
import type { OnReady, RunOutcome } from '../engine/run.js';
import { type ParsedArguments, countOption, textOption, wrongValue } from './arguments.js';

/** For whoever started `run` and must know, without asking, when the application runs (docs/json.md). */
export interface Notify {
  readonly ready: OnReady;
  readonly ended: (outcome: RunOutcome) => void;
}

/** `--notify-fd N`: one JSON line for each. Nobody listening is no reason to fail the job. */
export function notifyOption(parsed: ParsedArguments): Notify {
  const fd = textOption(parsed, 'notify-fd') === undefined ? undefined : openFd(parsed);
  const write = (message: object): void => {
    if (fd === undefined) return;
    try {
      writeSync(fd, `${JSON.stringify(message)}\n`);
    } catch {
      // EPIPE, EAGAIN: the reader has gone or does not read.
      return;
    }
  };
  return {
    ready: (restoredGeneration) => write({ event: 'ready', pid: process.pid, restoredGeneration }),
    ended: ({ exitCode, reason, error }) =>
      write({
        event: 'ended',
        exitCode,
        ...(reason === undefined ? {} : { reason }),
        ...(error === undefined ? {} : { error: toErrorRecord(error) }),
      }),
  };
}

function openFd(parsed: ParsedArguments): number {
  const fd = countOption(parsed, 'notify-fd', 3, 3);
  try {
    const stat = fstatSync(fd);
    if (stat.isFIFO() || stat.isSocket() || stat.isFile()) return fd;
  } catch {
    // Not open: as wrong as one that is no pipe, socket or file.
  }
  throw wrongValue('notify-fd', String(fd), 'expected the number of an open pipe, socket or file');
}
