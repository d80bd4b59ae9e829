// SPDX-License-Identifier: Apache-2.0
import { createReadStream, createWriteStream } from 'node:fs';
import { rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';
import { ROOT_FOLDER } from './layout.js';
import { sha256OfFile } from './packages.js';
import { runTool, whyFailed } from './tool.js';

export interface Bundle {
  readonly path: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

const TAR_TIMEOUT_MS = 60_000;
const COMPRESS_TIMEOUT_MS = 180_000;

/**
 * Pack a runtime into one file; the same packages give the same bytes. The ending of the name chooses the
 * compression. `FILE.sha256` is written beside it, as sha256sum does.
 */
export async function packBundle(root: string, file: string, signal?: AbortSignal): Promise<Bundle> {
  const path = resolve(file);
  const compress = compressorFor(path);
  // Beside the target: whoever sees the name sees the whole file.
  const plain = join(dirname(path), `.${basename(path)}.${String(process.pid)}.tar`);
  const packed = `${plain}.packed`;
  try {
    const tarred = await runTool(tarCommand(root, plain), { timeoutMs: TAR_TIMEOUT_MS, ...signalOf(signal) });
    if (!tarred.ok) throw packFailure(path, whyFailed(tarred));
    await compress(plain, packed, signal);
    const sha256 = await sha256OfFile(packed);
    const { size } = await stat(packed);
    await rename(packed, path);
    await writeFile(`${path}.sha256`, `${sha256}  ${basename(path)}\n`);
    return { path, sha256, sizeBytes: size };
  } catch (error) {
    throw asFastFreezeError(error, 'pack the runtime into', path);
  } finally {
    await rm(plain, { force: true });
    await rm(packed, { force: true });
  }
}

/** Throws `usage` where no compression is known for a file of that name. */
export function checkBundleName(file: string): void {
  compressorFor(resolve(file));
}

function tarCommand(root: string, file: string): string[] {
  const fixed = ['--format=gnu', '--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner'];
  // The umask of whoever installed must not show in the bytes.
  return ['tar', ...fixed, '--mode=u=rwX,go=rX', '-C', dirname(root), '-cf', file, ROOT_FOLDER];
}

type Compressor = (from: string, to: string, signal?: AbortSignal) => Promise<void>;

function compressorFor(path: string): Compressor {
  // One thread each: the number of threads changes the bytes.
  if (/\.(?:tar\.xz|txz)$/.test(path)) return byTool(['xz', '-6', '-T1', '--keep', '--stdout']);
  if (/\.(?:tar\.zst|tzst)$/.test(path)) return byTool(['zstd', '-19', '-q', '--single-thread', '--stdout']);
  if (/\.(?:tar\.gz|tgz)$/.test(path)) return byGzip;
  throw new FastFreezeError({
    code: 'usage',
    op: 'pack the runtime into',
    subject: path,
    reason: 'the name must end in .tar.xz, .tar.zst or .tar.gz',
    hint: 'fastfreeze install --bundle fastfreeze-criu.tar.xz',
  });
}

function byTool(command: readonly string[]): Compressor {
  return async (from, to, signal) => {
    // The shell only connects the output to the file; all words come as arguments.
    const words = ['sh', '-c', 'out=$1; shift; exec "$@" >"$out"', 'sh', to, ...command, from];
    const result = await runTool(words, { timeoutMs: COMPRESS_TIMEOUT_MS, ...signalOf(signal) });
    if (!result.ok) throw packFailure(to, whyFailed(result));
  };
}

async function byGzip(from: string, to: string, signal?: AbortSignal): Promise<void> {
  await pipeline(createReadStream(from), createGzip({ level: 9 }), createWriteStream(to), signalOf(signal));
}

function packFailure(path: string, reason: string): FastFreezeError {
  return new FastFreezeError({ code: 'host', op: 'pack the runtime into', subject: path, reason });
}

function signalOf(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
