// SPDX-License-Identifier: Apache-2.0
import { asFastFreezeError } from '../../../base/errors.js';
import type { ExamineOptions } from './examine.js';
import type { Row } from './row.js';
import { fail, ok } from './row.js';

/** Where running jobs are found; it must be private, since who reaches into it controls jobs. */
export function examineStateDirectory(options: ExamineOptions): Row {
  try {
    return ok('state-directory', options.stateDirectory());
  } catch (error) {
    const known = asFastFreezeError(error, 'use the state directory');
    const remedy = known.hint ?? 'name a folder of yours that nobody else can enter in FF_STATE_DIR';
    return fail('state-directory', known.message, remedy);
  }
}
