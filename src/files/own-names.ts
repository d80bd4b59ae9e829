// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import type { BytePath } from './entry.js';

// While files are brought back, ours lie beside them: under names that follow from theirs, so that whoever comes after
// an interrupted restore knows what they are.

/** What will be here, complete. */
export function stagedName(name: BytePath): BytePath {
  return `.ff-new-${mark(name)}`;
}

/** What was here, while it is changed in place. */
export function hiddenName(name: BytePath): BytePath {
  return `.ff-old-${mark(name)}`;
}

/** A directory for what was not there at the checkpoint. */
export const SET_ASIDE = '.fastfreeze-set-aside';

export function isOurName(name: BytePath): boolean {
  return name === SET_ASIDE || isTemporary(name);
}

/** A leftover of an interrupted restore. */
export function isTemporary(name: BytePath): boolean {
  return /^\.ff-(new|old)-[0-9a-f]{16}$/.test(name);
}

function mark(name: BytePath): string {
  return createHash('sha256').update(name, 'latin1').digest('hex').slice(0, 16);
}
