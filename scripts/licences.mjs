// SPDX-License-Identifier: Apache-2.0
// The licences of the npm packages that bundles are made of: their folders are not passed on, so their texts must be.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { licenceFiles } from './package-modules.mjs';

/** A text, out of what esbuild says went into its bundles. The same packages give the same bytes. */
export function licencesOf(metafiles) {
  const inputs = metafiles.flatMap(({ inputs }) => Object.keys(inputs));
  const folders = inputs.map((path) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0]);
  const packages = [...new Set(folders.filter((folder) => folder !== undefined))].sort();
  return [`Of npm packages, beside fastfreeze itself (Apache-2.0):\n`, ...packages.map(licenceOf)].join(
    `\n${'-'.repeat(80)}\n`,
  );
}

function licenceOf(folder) {
  const { name, version, license, author } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const texts = licenceFiles(folder).map((file) => readFileSync(join(folder, file), 'utf8').trim());
  // Where there is none, at least whose work it is.
  const whose = typeof author === 'string' ? author : author?.name;
  if (texts.length === 0)
    texts.push(`By ${whose ?? 'the authors of that package'}, who have put no text of the licence into it.`);
  return [`${name} ${version} (${license})`, '', ...texts, ''].join('\n');
}
