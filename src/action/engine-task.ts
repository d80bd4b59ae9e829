// SPDX-License-Identifier: Apache-2.0
import { appendFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ErrorRecord, hasErrno } from '../base/errors.js';
import type { Cloud } from '../notice/sources/clouds.js';
import type { CommandWords, Script } from './command-files.js';
import type { Ran } from './progress.js';

/** What main asks of the engine; it goes over a pipe, since a passphrase in it must not lie on any disk. */
export interface EngineTask {
  /** Where the engine tells what happens; of this step alone. */
  readonly directory: string;
  readonly imageUrl: string;
  /** Options of `fastfreeze run`, as on its command line. */
  readonly options: readonly string[];
  readonly command: readonly string[];
  readonly script: Script;
  readonly passphrase?: string;
  readonly deadline?: EngineDeadline;
  /** Milliseconds; undefined: only where a notice would come too late. */
  readonly checkpointEvery?: number | 'auto';
  readonly noticeFrom: readonly Cloud[];
  /** Leave the images, and the record that the job has ended, when it has. */
  readonly keepImage: boolean;
}

export interface EngineDeadline {
  /** Milliseconds since the epoch. */
  readonly atMs: number;
  /** `durable`: the image must be safe by then, and the planner says when to start; `start`: freeze at that moment. */
  readonly of: 'durable' | 'start';
}

export interface CheckpointTold {
  readonly generation: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly frozenMs: number;
  readonly durableMs: number;
}

/** How the engine's work ended. */
export interface EngineResult {
  /** The command's own, 128 + n after signal n; of ours 170, 171 or 2. */
  readonly exitCode: number;
  /** `ended`: the command came to its own end, now or in an earlier run. `frozen`: the next run continues it. */
  readonly how: 'ended' | 'frozen' | 'failed';
  /** In words. */
  readonly reason?: string;
  readonly error?: ErrorRecord;
  /** Of a command that has ended in this run. */
  readonly words?: CommandWords;
}

/** Lines of the file of events; times are milliseconds since the epoch. */
export type EngineEvent = { readonly atMs: number } &
  /** Signals are heard from now on. */
  (
    | { readonly type: 'begun' }
    | { readonly type: 'ready'; readonly restoredGeneration: number | null }
    /** A checkpoint is asked for; without `leavesRunning` it stops the command. `ran`: what that has done in this run until then. */
    | { readonly type: 'asked'; readonly source: string; readonly leavesRunning: boolean; readonly ran?: Ran }
    | ({ readonly type: 'checkpoint' } & CheckpointTold)
    | { readonly type: 'checkpoint-failed'; readonly message: string }
    | { readonly type: 'warning'; readonly message: string }
    | ({ readonly type: 'ended' } & EngineResult)
  );

type Untimed<E> = E extends unknown ? Omit<E, 'atMs'> : never;

/** To the engine: see `LastTry`. */
export const LAST_TRY: NodeJS.Signals = 'SIGUSR2';

/** Files in the directory of a step. */
export const OUTPUT_FILE = 'output';
const EVENTS_FILE = 'events';

/** Never throws: whoever would read it may be gone, with the directory, and the job must be saved all the same. */
export function tellEvent(directory: string, event: Untimed<EngineEvent>): void {
  const line = `${JSON.stringify({ atMs: Date.now(), ...event })}\n`;
  try {
    appendFileSync(join(directory, EVENTS_FILE), line);
  } catch {
    process.stderr.write(`nobody to tell: ${line}`);
  }
}

/** All that was told so far, whole lines only. */
export function readEvents(directory: string): EngineEvent[] {
  let text: string;
  try {
    text = readFileSync(join(directory, EVENTS_FILE), 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as EngineEvent);
}

export function resultOf(events: readonly EngineEvent[]): EngineResult | undefined {
  return events.find((event) => event.type === 'ended');
}
