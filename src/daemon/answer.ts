// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError, toErrorRecord } from '../base/errors.js';
import type { CheckpointResult } from '../engine/config.js';
import type { CheckpointFailure, RunFailure, RunResult } from './controller.js';

/** What a client gets: the text as FastFreeze's daemon has it, or, when it asks for JSON, all that is known. */
export interface Answer {
  readonly status: number;
  readonly text: string;
  readonly json: object;
  readonly headers?: Readonly<Record<string, string>>;
}

export function runAnswer(result: RunResult | RunFailure): Answer {
  if (result.running) {
    const { name, pid, restoredGeneration } = result;
    return { status: 200, text: 'App start successfully\n', json: { name, pid, restoredGeneration } };
  }
  const { exitCode, reason, error } = result;
  return { status: 500, text: `App Exited with exit_code ${exitCode}\n`, json: { exitCode, reason, error } };
}

export function checkpointAnswer(result: CheckpointResult | CheckpointFailure): Answer {
  if (!('error' in result)) return { status: 200, text: 'App checkpointed\n', json: result };
  return { status: 500, text: errorText(result.error), json: result };
}

/** What was thrown. A failure that is not ours to explain has no details: they are for the log. */
export function errorAnswer(error: unknown): Answer {
  if (error instanceof Refusal) return refusalAnswer(error.status, error.reason, error.headers);
  const known = asFastFreezeError(error, 'answer');
  const status = known.code === 'usage' ? 400 : known.code === 'conflict' ? 409 : 500;
  return { status, text: errorText(known), json: { error: toErrorRecord(known) } };
}

/** A request that is refused for its form, before anybody has looked at what it asks for. */
export class Refusal extends Error {
  override readonly name = 'Refusal';

  constructor(
    readonly status: number,
    readonly reason: string,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(reason);
  }
}

function refusalAnswer(status: number, reason: string, headers: Readonly<Record<string, string>>): Answer {
  const code = status === 404 ? 'not-found' : 'usage';
  const known = new FastFreezeError({ code, op: 'serve the request', reason, hint: 'see docs/ff-daemon.md' });
  return { status, text: errorText(known), json: { error: toErrorRecord(known) }, headers };
}

function errorText({ message, hint }: { readonly message: string; readonly hint?: string | undefined }): string {
  return `Error: ${message}\n${hint === undefined ? '' : `Try: ${hint}\n`}`;
}
