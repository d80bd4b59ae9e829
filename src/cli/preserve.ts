// SPDX-License-Identifier: Apache-2.0
import type { Preserve } from '../engine/config.js';
import { isBelow, preservedRoots, wrongRoot } from '../files/roots.js';
import { type ParsedArguments, flagOption, wrongValue } from './arguments.js';

/** `--preserve-path`, `--preserve-open-files` and `--carry-mapped`. Throws `usage` for a path that cannot be meant. */
export function preserveOption(parsed: ParsedArguments): Preserve {
  const paths = pathsOption(parsed, 'preserve-path');
  for (const path of paths) {
    const reason = wrongRoot(path);
    if (reason !== undefined) throw wrongValue('preserve-path', path, reason);
  }
  const mapped = flagOption(parsed, 'carry-mapped');
  return { paths, openFiles: flagOption(parsed, 'preserve-open-files'), mapped };
}

/** `--preserve-except`. Throws `usage` where nothing would be left of a preserved path. */
export function exceptOption(parsed: ParsedArguments): string[] {
  const except = pathsOption(parsed, 'preserve-except');
  for (const path of pathsOption(parsed, 'preserve-path')) {
    const above = except.find((one) => path === one || isBelow(path, one));
    if (above !== undefined) throw wrongValue('preserve-except', above, `nothing would be preserved of ${path}`);
  }
  return except;
}

function pathsOption(parsed: ParsedArguments, name: string): string[] {
  const given = parsed.values[name];
  return preservedRoots(Array.isArray(given) ? given.map(String) : [], process.cwd());
}
