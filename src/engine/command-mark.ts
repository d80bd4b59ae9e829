// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';

/** Tells command lines apart, without showing the arguments of an encrypted job to whoever can read its records. */
export function commandSha256(command: readonly string[]): string {
  return createHash('sha256').update(command.join('\0')).digest('hex');
}
