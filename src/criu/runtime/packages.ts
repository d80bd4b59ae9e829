// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { FastFreezeError } from '../../base/errors.js';

/** One Debian package of a runtime. */
export interface PackageRecord {
  readonly name: string;
  readonly version: string;
  /** Of the .deb file. */
  readonly sha256: string;
}

/** What a runtime was made of: `root/packages.json`, and `runtime/tested-packages.json` for the tested set. */
export interface PackageSet {
  readonly format: 1;
  readonly criuVersion: string;
  readonly suite: string;
  readonly architecture: string;
  readonly packages: readonly PackageRecord[];
}

/** How a set relates to the one this version of the tool was tested with. */
export type TestedComparison =
  { readonly tested: true } | { readonly tested: false; readonly differences: readonly string[] };

/** A short name for exactly this set of packages. */
export function packageSetId(set: PackageSet): string {
  const hash = createHash('sha256').update(JSON.stringify(set.packages.map((one) => one.sha256).sort()));
  return `${set.criuVersion}-${hash.digest('hex').slice(0, 10)}`;
}

/**
 * Compare with the tested set. Another version is only worth a word; the same version with other bytes is
 * either a broken mirror or an attack, and refused.
 */
export function compareWithTested(set: PackageSet, tested: PackageSet | undefined): TestedComparison {
  if (tested === undefined) return { tested: false, differences: [] };
  const known = new Map(tested.packages.map((one) => [one.name, one]));
  const differences: string[] = [];
  for (const one of set.packages) {
    const expected = known.get(one.name);
    if (expected?.version !== one.version) differences.push(`${one.name} ${one.version}`);
    else if (expected.sha256 !== one.sha256) throw wrongBytes(one, expected);
  }
  return differences.length === 0 ? { tested: true } : { tested: false, differences };
}

function wrongBytes(one: PackageRecord, expected: PackageRecord): FastFreezeError {
  return new FastFreezeError({
    code: 'host',
    op: 'use the package',
    subject: `${one.name} ${one.version}`,
    reason: `its SHA-256 is ${one.sha256}, the tested package of this version has ${expected.sha256}`,
    hint: 'use another mirror with --mirror URL; this one serves changed files',
  });
}

/** The committed set, or undefined where the package was bundled without it. */
export async function readTestedSet(): Promise<PackageSet | undefined> {
  let folder = dirname(fileURLToPath(import.meta.url));
  // lib/ and the tests' output lie at different depths below the package.
  for (let depth = 0; depth < 6; depth++) {
    const path = join(folder, 'runtime/tested-packages.json');
    if (existsSync(path)) return await readPackageSet(path);
    folder = dirname(folder);
  }
  return undefined;
}

export async function readPackageSet(path: string): Promise<PackageSet> {
  const parsed: unknown = JSON.parse(await readFile(path, 'utf8'));
  if (isPackageSet(parsed)) return parsed;
  throw new FastFreezeError({ code: 'host', op: 'read', subject: path, reason: 'it is not a list of packages' });
}

function isPackageSet(value: unknown): value is PackageSet {
  if (typeof value !== 'object' || value === null || !('packages' in value) || !('criuVersion' in value)) return false;
  return 'format' in value && value.format === 1 && Array.isArray(value.packages) && value.packages.every(isRecord);
}

function isRecord(value: unknown): value is PackageRecord {
  if (typeof value !== 'object' || value === null) return false;
  return 'name' in value && 'version' in value && 'sha256' in value && typeof value.sha256 === 'string';
}

export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
