// SPDX-License-Identifier: Apache-2.0
import { debug, error as annotateError, setOutput } from '@actions/core';
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import { EXIT_CHECKPOINTED, EXIT_FAILED } from './outcome.js';

const EXIT_USAGE = 2;

/** What came before there was anything to conclude. */
export function tellFailure(error: unknown): number {
  const known = asFastFreezeError(error, 'run the step');
  // Nobody has foreseen it; shown where the repository has ACTIONS_STEP_DEBUG.
  if (!(error instanceof FastFreezeError) && error instanceof Error) debug(error.stack ?? error.message);
  annotateError(withHint(known.message, known.hint), { title: 'fastfreeze' });
  setOutput('status', known.code === 'aborted' ? 'checkpointed' : 'failed');
  setOutput('completed', 'false');
  setOutput('ran', 'false');
  setOutput('restored', 'false');
  return known.code === 'usage' ? EXIT_USAGE : known.code === 'aborted' ? EXIT_CHECKPOINTED : EXIT_FAILED;
}

export function withHint(message: string, hint: string | undefined): string {
  return hint === undefined ? `${message}.` : `${message}. Try: ${hint}`;
}
