// SPDX-License-Identifier: Apache-2.0
import { createReadStream, createWriteStream } from 'node:fs';
import { lstat, mkdir, open, readdir, readlink } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { FastFreezeError } from '../../base/errors.js';
import { PACKAGES_FILE, ROOT_FOLDER } from './layout.js';
import type { PackageSet } from './packages.js';
import { readPackageSet } from './packages.js';
import { runTool, whyFailed } from './tool.js';

const UNPACK_TIMEOUT_MS = 120_000;

/** Unpack a verified bundle into `folder/root`. Resolves to what it is made of. */
export async function unpackBundle(file: string, folder: string, signal?: AbortSignal): Promise<PackageSet> {
  await mkdir(folder, { recursive: true });
  const common = { timeoutMs: UNPACK_TIMEOUT_MS, ...(signal === undefined ? {} : { signal }) };
  const { archive, option } = await readable(file);
  // tar itself refuses absolute names and `..`, and delays links that point outside until the end.
  const safe = ['--no-same-owner', '--no-same-permissions', '--keep-old-files'];
  const command = ['tar', '-x', ...option, ...safe, '-f', archive, '-C', folder];
  const unpacked = await runTool(command, common);
  if (!unpacked.ok) throw notABundle(whyFailed(unpacked));
  const root = join(folder, ROOT_FOLDER);
  const others = (await readdir(folder)).filter((name) => name !== ROOT_FOLDER);
  if (others.length > 0) throw notABundle(`it has unexpected contents (${others.join(', ')})`);
  await refuseForeignEntries(root, root);
  return await readPackageSet(join(root, PACKAGES_FILE)).catch((error: unknown) => {
    throw notABundle(error instanceof Error ? error.message : 'it has no list of packages');
  });
}

/** The compression is told by the first bytes; gzip is undone here, so that such bundles need tar only. */
async function readable(file: string): Promise<{ archive: string; option: string[] }> {
  const handle = await open(file);
  const head = Buffer.alloc(6);
  await handle.read(head, 0, head.length, 0);
  await handle.close();
  if (head.subarray(0, 6).equals(Buffer.from('fd377a585a00', 'hex'))) return { archive: file, option: ['--xz'] };
  if (head.subarray(0, 4).equals(Buffer.from('28b52ffd', 'hex'))) return { archive: file, option: ['--zstd'] };
  if (!head.subarray(0, 2).equals(Buffer.from('1f8b', 'hex'))) throw notABundle('it is neither xz, zstd nor gzip');
  const archive = `${file}.tar`;
  await pipeline(createReadStream(file), createGunzip(), createWriteStream(archive));
  return { archive, option: [] };
}

/** A runtime has folders, plain files and links within itself, and nothing that gives rights. */
async function refuseForeignEntries(folder: string, root: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isSymbolicLink()) {
      const target = resolve(dirname(path), await readlink(path));
      if (relative(root, target).startsWith('..')) throw notABundle(`${entry.name} is a link that leads outside`);
    } else if (entry.isDirectory()) {
      await refuseForeignEntries(path, root);
    } else if (!entry.isFile() || ((await lstat(path)).mode & 0o6000) !== 0) {
      throw notABundle(`${entry.name} is a device or a set-user-id program`);
    }
  }
}

function notABundle(reason: string): FastFreezeError {
  return new FastFreezeError({
    code: 'image',
    op: 'unpack the bundle',
    reason,
    hint: 'a bundle is made with: fastfreeze install --bundle FILE',
  });
}
