// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { hasErrno } from '../base/errors.js';
import { parseManifestName } from '../image/names.js';
import { type BytePath, toBuffer } from './entry.js';

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

/** Where objects of a cache are put together, those of this very image perhaps; it lies where TMPDIR says. */
export function isCacheStaging(name: BytePath): boolean {
  return /^fastfreeze-cache-\w{6}$/.test(name);
}

/** A leftover of an interrupted restore, and no loss: it is in the image. Not so a file that was being changed. */
export function isStaged(name: BytePath): boolean {
  return /^\.ff-new-[0-9a-f]{16}$/.test(name);
}

function isTemporary(name: BytePath): boolean {
  return isStaged(name) || /^\.ff-old-[0-9a-f]{16}$/.test(name);
}

/** Whether a name is that of a manifest: then images of a job lie beside it. */
export function isManifest(name: string): boolean {
  return parseManifestName(name) !== undefined;
}

/** Whether a directory is where images of a job lie: no image must hold another, nor be set aside. */
export function holdsImages(path: BytePath): boolean {
  try {
    return readdirSync(toBuffer(path)).some(isManifest);
  } catch (error) {
    if (hasErrno(error, 'ENOTDIR', 'ENOENT', 'EACCES', 'EPERM')) return false;
    throw error;
  }
}

function mark(name: BytePath): string {
  return createHash('sha256').update(name, 'latin1').digest('hex').slice(0, 16);
}
