// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { FULL } from './random.js';
import { scratchDir } from './stage.js';

/** The self-contained package of this commit. */
export interface MadePackage {
  /** Where the archive and its sum are. */
  readonly folder: string;
  readonly archive: string;
  /** The archive's content, extracted. */
  readonly extracted: string;
  /** What `npm run package` printed. */
  readonly said: string;
}

/** With the compression of a release, minutes on a loaded machine. */
export const MAKE_PACKAGE_MS = 900_000;

/** Made once in a run of the tests, hardly compressed but at full length; of several at once the first makes it, the others wait. */
export function makePackage(): MadePackage {
  const folder = join(dirname(scratchDir()), 'made');
  const words = [`${folder}.lock`, 'sh', '-c', MAKE, 'sh', folder, ...(FULL ? [] : ['--fast'])];
  execFileSync('flock', words, { timeout: MAKE_PACKAGE_MS });
  return {
    folder,
    archive: join(folder, 'fastfreeze-linux-x64.tar.xz'),
    extracted: join(folder, 'fastfreeze'),
    said: readFileSync(join(folder, 'said'), 'utf8'),
  };
}

/** Extracted as a container engine or root does it, whatever the umask. */
const MAKE = `
set -eu
folder=$1
shift
[ ! -e "$folder/said" ] || exit 0
mkdir -p "$folder"
sh scripts/package.sh --no-setup --out "$folder" "$@" >"$folder/said.part"
(umask 077; tar -xJf "$folder/fastfreeze-linux-x64.tar.xz" -C "$folder")
mv "$folder/said.part" "$folder/said"
`;
