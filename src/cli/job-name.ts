// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { type ParsedArguments, textOption } from './arguments.js';

/** The job meant by `--container NAME` or by the one positional word; undefined when there is only one to mean. */
export function jobNameFrom(parsed: ParsedArguments): string | undefined {
  const option = textOption(parsed, 'container');
  const [name, extra] = parsed.rest;
  if (extra !== undefined || (option !== undefined && name !== undefined && option !== name)) {
    throw new FastFreezeError({
      code: 'usage',
      op: 'choose a job',
      subject: parsed.rest.join(' '),
      reason: 'more than one name is given',
      hint: 'name one job',
    });
  }
  return option ?? name;
}
