// SPDX-License-Identifier: Apache-2.0
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FastFreezeError } from '../../base/errors.js';
import { LICENSES_FILE } from './layout.js';
import type { PackageRecord } from './packages.js';

/** Write the index of licences: whoever passes a runtime on passes these programs on. */
export async function writeLicenses(root: string, packages: readonly PackageRecord[]): Promise<void> {
  const lines = [
    'This folder holds unmodified programs and libraries of Debian packages (documentation,',
    'translations and character sets left out). Each has its own licence, whose full text is in the',
    'file named beside it, and the licences common to many are in usr/share/common-licenses.',
    'Debian keeps the sources of exactly these versions: `apt-get source NAME=VERSION`, and in its',
    'snapshot archive those that it no longer offers otherwise.',
    '',
  ];
  for (const one of packages) {
    const file = `usr/share/doc/${one.name}/copyright`;
    lines.push(
      `${one.name} ${one.version}`,
      `  text: ${file}`,
      `  names: ${licenceNames(await textOf(root, file))}`,
      '',
    );
  }
  await writeFile(join(root, LICENSES_FILE), lines.join('\n'));
}

async function textOf(root: string, file: string): Promise<string> {
  try {
    return await readFile(join(root, file), 'utf8');
  } catch (error) {
    const reason = 'the package carries no licence text';
    throw new FastFreezeError({ code: 'host', op: 'record the licence in', subject: file, reason, cause: error });
  }
}

/** The short names of a machine-readable copyright file; older ones are prose. */
function licenceNames(text: string): string {
  const names = [...text.matchAll(/^License:\s*(\S.*)$/gm)].map((match) => match[1]?.trim() ?? '');
  return names.length === 0 ? 'see the text' : [...new Set(names)].sort().join(', ');
}
