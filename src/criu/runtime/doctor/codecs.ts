// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CODEC_LIBRARIES } from '../layout.js';
import type { Row } from './row.js';
import { ok, warn } from './row.js';

const SYSTEM_FOLDERS = ['/usr/lib/x86_64-linux-gnu', '/lib/x86_64-linux-gnu', '/usr/lib64', '/lib64', '/usr/lib'];

/** The libraries that compress images: the runtime's own, else the machine's. */
export function examineCodecs(libraryDir: string | undefined): Row {
  const folders = libraryDir === undefined ? SYSTEM_FOLDERS : [libraryDir, ...SYSTEM_FOLDERS];
  const found = CODEC_LIBRARIES.map((name) => folders.map((folder) => join(folder, name)).find(existsSync));
  const missing = CODEC_LIBRARIES.filter((_, index) => found[index] === undefined);
  if (missing.length > 0) {
    return warn(
      'codecs',
      `${missing.join(', ')} not found: not every image can be written or read`,
      'fastfreeze install --force',
    );
  }
  const own = libraryDir !== undefined && found.every((path) => path?.startsWith(libraryDir) === true);
  return ok('codecs', `lz4, zstd and xxHash from ${own ? 'the installed runtime' : 'the system'}`);
}
