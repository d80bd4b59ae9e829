// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from 'node:timers/promises';
import { type EngineEvent, type EngineResult, readEvents, resultOf } from './engine-task.js';
import { type EngineHandle, isAlive } from './engine-process.js';
import { type Show, ShownOutput } from './shown-output.js';

const LOOK_MS = 100;

export interface Watched {
  readonly events: readonly EngineEvent[];
  /** Undefined: the time was up, or `signal` aborted, before the engine had ended. */
  readonly result: EngineResult | undefined;
  /** How much of the output is shown by now. */
  readonly shownBytes: number;
  /** What of it there was no time to show. */
  readonly hiddenBytes: number;
}

export interface WatchOptions {
  /** By `Date.now()`; undefined: as long as it takes. */
  readonly untilMs?: number | undefined;
  readonly signal?: AbortSignal;
  /** Shows what the engine and the command write. */
  readonly show: Show;
  /** What another step has shown already. */
  readonly shownBytes?: number;
  readonly onEvents?: (events: readonly EngineEvent[]) => Promise<void>;
}

/** Wait for the end of the engine, and show its output meanwhile, neither for longer than asked. One that is gone without a word has failed. */
export async function watchEngine(engine: EngineHandle, options: WatchOptions): Promise<Watched> {
  const { untilMs = Infinity, signal, show, onEvents } = options;
  const isOver = (): boolean => signal?.aborted === true || Date.now() >= untilMs;
  const output = ShownOutput.open(engine.directory, options.shownBytes ?? 0);
  let seen = 0;
  try {
    for (;;) {
      // Before the events: what it wrote before its last one is shown then.
      const wasAlive = isAlive(engine);
      const events = readEvents(engine.directory);
      const hiddenBytes = await output.show(show, isOver);
      if (events.length > seen) await onEvents?.(events);
      seen = events.length;
      const result = resultOf(events) ?? (wasAlive ? undefined : lost());
      if (result !== undefined || isOver()) {
        return { events, result, shownBytes: output.shownBytes, hiddenBytes };
      }
      await sleep(LOOK_MS);
    }
  } finally {
    output.close();
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
