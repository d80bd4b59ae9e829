// SPDX-License-Identifier: Apache-2.0
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { FastFreezeError } from '../base/errors.js';

/** One digit, for a controller that looks at a file. */
export const DIGITS = { standby: '0', running: '1', checkpointed: '2' } as const;

/** Replaced in one step: a reader never finds it empty. Throws `host`. */
export function writeStatusFile(path: string, state: keyof typeof DIGITS): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, DIGITS[state]);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new FastFreezeError({
      code: 'host',
      op: 'write the status file',
      subject: path,
      reason: error instanceof Error ? error.message : String(error),
      hint: 'give --status-file a path in a directory that exists and can be written',
      cause: error,
    });
  }
}
