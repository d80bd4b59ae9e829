// SPDX-License-Identifier: Apache-2.0
import type { Preserve } from '../engine/config.js';
import { preservedRoots, wrongRoot } from '../files/roots.js';
import { type ParsedArguments, flagOption, wrongValue } from './arguments.js';

/** `--preserve-path`, `--preserve-open-files` and `--carry-mapped`. Throws `usage` for a path that cannot be meant. */
export function preserveOption(parsed: ParsedArguments): Preserve {
  const given = parsed.values['preserve-path'];
  const words = Array.isArray(given) ? given.map(String) : [];
  const paths = preservedRoots(words, process.cwd());
  for (const path of paths) {
    const reason = wrongRoot(path);
    if (reason !== undefined) throw wrongValue('preserve-path', path, reason);
  }
  const mapped = flagOption(parsed, 'carry-mapped');
  return { paths, openFiles: flagOption(parsed, 'preserve-open-files'), mapped };
}
