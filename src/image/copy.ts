// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { Store } from '../store/store.js';
import { commitManifest } from './generations.js';
import type { Manifest } from './manifest.js';

const PIECE_BYTES = 1 << 20;

/**
 * Copy one generation to another store: shards, then the index, then the commit, so that the copy is there whole or
 * not at all. `exists` when the other store has a commit of this generation already.
 */
export async function copyGeneration(from: Store, to: Store, manifest: Manifest): Promise<'created' | 'exists'> {
  await to.prepare();
  const { image } = manifest;
  if (image !== undefined) {
    const piece = Buffer.alloc(PIECE_BYTES);
    for (const object of [...image.shards, image.index]) await copyObject(from, to, object, piece);
  }
  return await commitManifest(to, manifest);
}

async function copyObject(
  from: Store,
  to: Store,
  object: { readonly name: string; readonly sizeBytes: number },
  piece: Buffer,
): Promise<void> {
  // An earlier attempt got this far: objects appear whole and never change.
  if ((await to.size(object.name)) === object.sizeBytes) return;
  const reader = await from.openReader(object.name);
  const writer = await to.createWriter(object.name);
  try {
    if (reader.sizeBytes !== object.sizeBytes) {
      throw new FastFreezeError({
        code: 'image',
        op: 'copy',
        subject: object.name,
        reason: `it has ${reader.sizeBytes} bytes where the manifest says ${object.sizeBytes}`,
      });
    }
    for (let offset = 0; offset < object.sizeBytes;) {
      const part = piece.subarray(0, Math.min(PIECE_BYTES, object.sizeBytes - offset));
      await reader.read(offset, part);
      await writer.append([part]);
      offset += part.length;
    }
    await writer.finish();
  } catch (error) {
    await writer.abort();
    throw error;
  } finally {
    reader.close();
  }
}
