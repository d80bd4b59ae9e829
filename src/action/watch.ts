// SPDX-License-Identifier: Apache-2.0
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type EngineEvent, type EngineResult, OUTPUT_FILE, readEvents, resultOf } from './engine-task.js';
import { type EngineHandle, isAlive } from './engine-process.js';

const LOOK_MS = 100;
const PIECE_BYTES = 65_536;

export interface Watched {
  readonly events: readonly EngineEvent[];
  /** Undefined: the time was up, or `signal` aborted, before the engine had ended. */
  readonly result: EngineResult | undefined;
  /** How much of the output is shown by now. */
  readonly shownBytes: number;
}

export interface WatchOptions {
  /** By `Date.now()`; undefined: as long as it takes. */
  readonly untilMs?: number | undefined;
  readonly signal?: AbortSignal;
  /** Shows what the engine and the command write; without it nothing is read. */
  readonly show?: (piece: Buffer) => Promise<void>;
  /** What another step has shown already. */
  readonly shownBytes?: number;
  readonly onEvents?: (events: readonly EngineEvent[]) => Promise<void>;
}

/** Wait for the end of the engine, and show its output meanwhile. One that is gone without a word has failed. */
export async function watchEngine(engine: EngineHandle, options: WatchOptions): Promise<Watched> {
  const { untilMs = Infinity, signal, show, onEvents } = options;
  const output = show === undefined ? undefined : openSync(join(engine.directory, OUTPUT_FILE), 'r');
  let seen = 0;
  let shownBytes = options.shownBytes ?? 0;
  try {
    for (;;) {
      // Before the events: what it wrote before its last one is shown then.
      const wasAlive = isAlive(engine);
      const events = readEvents(engine.directory);
      if (output !== undefined && show !== undefined) shownBytes = await showNew(output, shownBytes, show);
      if (events.length > seen) await onEvents?.(events);
      seen = events.length;
      const result = resultOf(events);
      if (result !== undefined) return { events, result, shownBytes };
      if (!wasAlive) return { events, result: lost(), shownBytes };
      if (signal?.aborted === true || Date.now() >= untilMs) return { events, result: undefined, shownBytes };
      await sleep(LOOK_MS);
    }
  } finally {
    if (output !== undefined) closeSync(output);
  }
}

/** Resolves to where it ends by now. */
async function showNew(output: number, from: number, show: (piece: Buffer) => Promise<void>): Promise<number> {
  for (let at = from; ;) {
    const piece = Buffer.alloc(PIECE_BYTES);
    const length = readSync(output, piece, 0, piece.length, at);
    if (length === 0) return at;
    await show(piece.subarray(0, length));
    at += length;
  }
}

/** To our standard output, as fast as it is read. */
export async function writeOut(piece: Buffer): Promise<void> {
  if (process.stdout.write(piece)) return;
  await new Promise<void>((resolve) => process.stdout.once('drain', resolve));
}

function lost(): EngineResult {
  return {
    exitCode: 170,
    how: 'failed',
    error: {
      code: 'app',
      op: 'go on with the command',
      message: 'cannot go on with the command: the engine was killed from outside',
      reason: 'the engine was killed from outside',
      hint: 'run the job again: it continues from the last checkpoint',
    },
  };
}
