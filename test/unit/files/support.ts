// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { lstatSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { type CapturedFiles, captureFiles } from '../../../src/files/capture.js';
import { type StageOptions, stageFiles } from '../../../src/files/stage.js';
import type { Manifest } from '../../../src/image/manifest.js';
import { newPrefix } from '../../../src/image/names.js';
import { type ImageReader, openImage } from '../../../src/image/reader.js';
import { createImageWriter } from '../../../src/image/writer.js';
import { readXattrs } from '../../../src/linux/xattr.js';
import type { Store } from '../../../src/store/store.js';
import { makeStore, manifestOf } from '../image/support.js';

export interface Captured extends CapturedFiles {
  readonly store: Store & { readonly directory: string };
  readonly manifest: Manifest;
  readonly warnings: readonly string[];
  /** Opened anew each time, as a restore does. */
  readonly open: () => Promise<ImageReader>;
}

/** Capture paths into an image of their own. */
export async function capture(roots: readonly string[], except: readonly string[] = []): Promise<Captured> {
  const store = makeStore();
  const writer = await createImageWriter({ store, prefix: newPrefix(), numShards: 2, codec: 'lz4' });
  const warnings: string[] = [];
  const signal = new AbortController().signal;
  const files = await captureFiles({ writer, roots, except, warn: (text) => warnings.push(text), signal });
  const manifest = manifestOf(await writer.finish());
  return { ...files, store, manifest, warnings, open: () => openImage({ store, manifest }) };
}

/** Stage and apply what was captured; returns the warnings. */
export async function bringBack(captured: Captured, options: Partial<StageOptions> = {}): Promise<string[]> {
  const warnings: string[] = [];
  const image = await captured.open();
  try {
    const staged = await stageFiles(
      {
        image,
        roots: captured.roots,
        except: [],
        preserveSetuid: false,
        warn: (text) => warnings.push(text),
        ...options,
      },
      () => undefined,
    );
    await staged.apply();
    return warnings;
  } finally {
    image.close();
  }
}

export interface Seen {
  readonly kind: string;
  readonly mode: string;
  readonly owner: string;
  readonly modifiedNs: bigint;
  readonly content: string;
  readonly xattrs: Record<string, string>;
  readonly links: number;
}

/** Everything below a path that a program could tell apart, except inodes; names as Latin-1. */
export function look(path: string): Record<string, Seen> {
  const found: Record<string, Seen> = {};
  visit(Buffer.from(path), found);
  return found;
}

function visit(path: Buffer, found: Record<string, Seen>): void {
  const stat = lstatSync(path, { bigint: true });
  const [isFile, isLink, isDirectory] = [stat.isFile(), stat.isSymbolicLink(), stat.isDirectory()];
  found[path.toString('latin1')] = {
    kind: isFile ? 'file' : isLink ? 'symlink' : isDirectory ? 'directory' : 'other',
    mode: stat.mode.toString(8),
    owner: `${stat.uid}:${stat.gid}`,
    modifiedNs: stat.mtimeNs,
    content: isFile
      ? `${stat.size} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`
      : isLink
        ? readlinkSync(path, { encoding: 'buffer' }).toString('latin1')
        : '',
    xattrs: Object.fromEntries([...readXattrs(path)].map(([name, value]) => [name, value.toString('latin1')])),
    links: isDirectory ? 0 : Number(stat.nlink),
  };
  if (!isDirectory) return;
  for (const name of readdirSync(path, { encoding: 'buffer' }).sort((a, b) => a.compare(b))) {
    visit(Buffer.concat([path, Buffer.from('/'), name]), found);
  }
}
