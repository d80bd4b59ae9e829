// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { valueOf } from '../batch/system.js';
import { type ParsedArguments, countOption } from './arguments.js';

const VARIABLE = 'FASTFREEZE_RESUBMIT';

/** How often a job may be submitted again after its last attempt: by `--resubmit`, or by a variable that a definition has. */
export function resubmitOption(parsed: ParsedArguments, env: NodeJS.ProcessEnv): number {
  return countOption(parsed, 'resubmit', fromVariable(env), 0);
}

function fromVariable(env: NodeJS.ProcessEnv): number {
  const text = valueOf(env, VARIABLE) ?? '0';
  if (/^\d{1,4}$/u.test(text)) return Number(text);
  throw new FastFreezeError({
    code: 'usage',
    op: 'understand',
    subject: `${VARIABLE}=${text}`,
    reason: 'expected a whole number from 0 to 9999',
    hint: `unset ${VARIABLE}: nothing is submitted again then`,
  });
}
