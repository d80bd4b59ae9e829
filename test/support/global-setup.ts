// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  copyFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SEED } from './random.js';

/**
 * Stages what a job needs into a directory that every user can read: the checkout may lie where a normal user cannot look.
 * Both identities run the staged copy, so that they differ in identity only.
 */
function globalSetup(): void {
  const stage = mkdtempSync(join(tmpdir(), 'ff-test-'));
  chmodSync(stage, 0o755);
  const target = join(stage, 'package');
  for (const path of ['bin', 'lib', 'runtime', 'package.json', ...productionPackages()]) {
    if (existsSync(path)) cpSync(path, join(target, path), { recursive: true, filter: isNeeded });
  }
  cpSync('test/fixtures', join(stage, 'fixtures'), { recursive: true });
  makeReadable(target);
  makeReadable(join(stage, 'fixtures'));
  stageNode(join(stage, 'node'));
  mkdirSync(join(stage, 's'));
  chmodSync(join(stage, 's'), 0o1777);
  mkdirSync(join(stage, 'home-root'));
  mkdirSync(join(stage, 'home-user'));
  if (process.getuid?.() === 0) chownSync(join(stage, 'home-user'), 64001, 64001);
  process.env['FF_TEST_STAGE'] = stage;
  process.env['FF_TEST_SEED'] = String(SEED);
  process.stdout.write(`seed: FF_TEST_SEED=${SEED}\n`);
}

/** What `npm install --omit=dev` would have installed, out of the lock file. */
function productionPackages(): string[] {
  const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
    readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly devOptional?: boolean }>>;
  };
  return (
    Object.entries(lock.packages)
      .filter(([, { dev, devOptional }]) => dev !== true && devOptional !== true)
      .map(([path]) => path)
      // One inside another is copied with it.
      .filter((path) => path.lastIndexOf('node_modules/') === 0)
  );
}

/** Types and maps are half of the SDKs. */
function isNeeded(path: string): boolean {
  return !/\.(?:d\.[cm]?ts|map)$/u.test(path);
}

/** A Node.js under a home directory is copied; a system one is linked, so that its pages are shared. */
function stageNode(path: string): void {
  const canRun = spawnSync('setpriv', [
    '--reuid=64001',
    '--regid=64001',
    '--clear-groups',
    process.execPath,
    '--version',
  ]);
  if (canRun.status === 0 || process.getuid?.() !== 0) symlinkSync(process.execPath, path);
  else copyFileSync(process.execPath, path);
}

/** The umask of whoever cloned must not decide what the normal user can read. */
function makeReadable(path: string): void {
  const stat = lstatSync(path);
  if (stat.isSymbolicLink()) return;
  chmodSync(path, stat.isDirectory() || (stat.mode & 0o100) !== 0 ? 0o755 : 0o644);
  if (stat.isDirectory()) for (const name of readdirSync(path)) makeReadable(join(path, name));
}

export { globalSetup as default };
