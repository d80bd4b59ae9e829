// SPDX-License-Identifier: Apache-2.0
import { dirname } from 'node:path';
import { findLibrary, libraryCandidates } from '../../../linux/codecs.js';
import { CODEC_LIBRARIES } from '../layout.js';
import type { Row } from './row.js';
import { ok, warn } from './row.js';

/** The libraries that compress images. They are loaded as images load them: one that is there may still not work. */
export function examineCodecs(env: NodeJS.ProcessEnv): Row {
  const found = CODEC_LIBRARIES.map((name) => foundAs(name, env));
  const missing = CODEC_LIBRARIES.filter((_, index) => found[index] === undefined);
  if (missing.length > 0) {
    return warn(
      'codecs',
      `${missing.join(', ')} cannot be loaded: not every image can be written or read`,
      'fastfreeze install --force',
    );
  }
  const folders = found.flatMap((path) => (path?.includes('/') === true ? [dirname(path)] : []));
  const where = [...(folders.length < found.length ? ['the system'] : []), ...new Set(folders)];
  return ok('codecs', `lz4, zstd and xxHash from ${where.join(' and ')}`);
}

function foundAs(name: string, env: NodeJS.ProcessEnv): string | undefined {
  try {
    return findLibrary(name, libraryCandidates(name, env)).path;
  } catch {
    return undefined;
  }
}
