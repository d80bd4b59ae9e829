// SPDX-License-Identifier: Apache-2.0
import type { CheckpointTold, EngineEvent, EngineResult } from './engine-task.js';

/** What the step's outputs say. */
export interface Outcome {
  readonly status: 'completed' | 'checkpointed' | 'failed';
  /** The command has come to its own end. */
  readonly completed: boolean;
  /** In this step, not in an earlier run only. */
  readonly ran: boolean;
  readonly restored: boolean;
  readonly exitCode: number | undefined;
  readonly last: CheckpointTold | undefined;
  /** The newest image; 0: there is none. */
  readonly generation: number;
}

export const EXIT_CHECKPOINTED = 85;
/** Of ours, as everywhere: docs/exit-codes.md. */
export const EXIT_FAILED = 170;
/** Not an end of its own, and no image of that moment. */
export const TOLD_TO_END = 'The command has ended because it was told to, before it could be frozen.';

export function outcomeOf(events: readonly EngineEvent[], result: EngineResult): Outcome {
  const ready = events.find((event) => event.type === 'ready');
  const last = events.findLast((event) => event.type === 'checkpoint');
  const ended = result.how === 'ended';
  const status = result.how === 'frozen' ? 'checkpointed' : ended && result.exitCode === 0 ? 'completed' : 'failed';
  return {
    status,
    completed: ended,
    ran: ready !== undefined,
    restored: ready !== undefined && ready.restoredGeneration !== null,
    exitCode: ended ? result.exitCode : undefined,
    last,
    generation: last?.generation ?? ready?.restoredGeneration ?? 0,
  };
}

/** Names and values of the outputs, as `action.yml` lists them. */
export function outputs(outcome: Outcome, imageUrl: string, nextRunUrl: string): Readonly<Record<string, string>> {
  const { last, generation } = outcome;
  return {
    status: outcome.status,
    completed: String(outcome.completed),
    ran: String(outcome.ran),
    restored: String(outcome.restored),
    'exit-code': outcome.exitCode === undefined ? '' : String(outcome.exitCode),
    'image-url': imageUrl,
    generation: generation === 0 ? '' : String(generation),
    'checkpoint-bytes': last === undefined ? '' : String(last.storedBytes),
    'frozen-ms': last === undefined ? '' : String(last.frozenMs),
    'next-run-url': nextRunUrl,
  };
}
