// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { Store } from '../store/store.js';
import { commitManifest, listGenerations, readManifest } from './generations.js';
import type { Manifest, ObjectRecord } from './manifest.js';
import { removeUncommitted } from './prune.js';
import { type Damage, type KeysOf, verifyImage } from './verify.js';

const PIECE_BYTES = 1 << 20;

/**
 * Copy one generation to another store: shards, then the index, then the commit, so that the copy is there whole or
 * not at all. `exists` when the other store has a commit of this generation already.
 */
export async function copyGeneration(
  from: Store,
  to: Store,
  manifest: Manifest,
): Promise<{ readonly outcome: 'created' | 'exists'; readonly copiedBytes: number }> {
  if (to.writeOnce !== undefined) refuseOlder(to, await listGenerations(to), manifest.generation);
  await to.prepare();
  const copiedBytes = await copyObjects(from, to, manifest);
  return { outcome: await commitManifest(to, manifest), copiedBytes };
}

/** A cache tells what was written last: it would be the newest, and the job go back to it. */
function refuseOlder(to: Store, there: readonly number[], generation: number): void {
  const newest = there.at(-1) ?? 0;
  if (to.writeOnce === undefined || newest <= generation) return;
  throw new FastFreezeError({
    code: 'conflict',
    op: `copy generation ${generation} to`,
    subject: to.url,
    reason: `generation ${newest} is there, and of a cache the generation written last is the newest`,
    hint: 'copy to another name',
  });
}

export interface CopyResult {
  readonly generation: number;
  /** `present`: this very generation was there already. */
  readonly outcome: 'copied' | 'present';
  readonly copiedBytes: number;
}

/**
 * The same for people, who may give any two places: a generation of the same number that is another one is refused
 * before a byte is written, and the copy is read back and verified before it is committed.
 */
export async function copyVerified(from: Store, to: Store, generation: number, keysOf?: KeysOf): Promise<CopyResult> {
  const manifest = await readManifest(from, generation);
  // Before a byte is copied: without its passphrase an image cannot be verified.
  const keys = await keysOf?.(manifest);
  const there = await listGenerations(to);
  if (there.includes(generation)) return await sameOrRefused(to, manifest);
  refuseOlder(to, there, generation);
  try {
    await to.prepare();
    const copiedBytes = await copyObjects(from, to, manifest);
    const { damage } = await verifyImage(to, manifest, keys);
    if (damage[0] !== undefined) throw damagedCopy(from, damage[0]);
    const isNewest = generation > (there.at(-1) ?? 0);
    const outcome = await commitManifest(to, manifest, { hint: isNewest });
    return outcome === 'exists' ? await sameOrRefused(to, manifest) : { generation, outcome: 'copied', copiedBytes };
  } catch (error) {
    // After any other failure what was copied waits for the next attempt, or for prune.
    if (error instanceof FastFreezeError && error.code === 'image' && manifest.image !== undefined) {
      await removeUncommitted(to, manifest.image.prefix).catch(() => undefined);
    }
    throw error;
  }
}

async function sameOrRefused(to: Store, manifest: Manifest): Promise<CopyResult> {
  const { generation, checksum } = manifest;
  if ((await readManifest(to, generation)).checksum === checksum) {
    return { generation, outcome: 'present', copiedBytes: 0 };
  }
  throw new FastFreezeError({
    code: 'conflict',
    op: 'copy to',
    subject: to.url,
    reason: `another generation ${generation} is there already`,
    hint: 'choose a destination that does not hold another job',
  });
}

/** Shards, then the index. Resolves to the bytes that were not there before. */
async function copyObjects(from: Store, to: Store, manifest: Manifest): Promise<number> {
  const { image } = manifest;
  let copiedBytes = 0;
  if (image === undefined) return copiedBytes;
  const piece = Buffer.alloc(PIECE_BYTES);
  for (const object of [...image.shards, image.index]) {
    // An earlier attempt got this far: objects appear whole and never change.
    if ((await to.size(object.name)) === object.sizeBytes) continue;
    await copyObject(from, to, object, piece);
    copiedBytes += object.sizeBytes;
  }
  return copiedBytes;
}

async function copyObject(from: Store, to: Store, object: ObjectRecord, piece: Buffer): Promise<void> {
  const reader = await from.openReader(object.name).catch((error: unknown) => {
    if (!(error instanceof FastFreezeError) || error.code !== 'not-found') throw error;
    throw wrongSource(object.name, 'this object of the image is missing', error);
  });
  try {
    if (reader.sizeBytes !== object.sizeBytes) {
      throw wrongSource(
        object.name,
        `it has ${reader.sizeBytes} bytes where the manifest says ${object.sizeBytes}`,
        undefined,
      );
    }
    const writer = await to.createWriter(object.name);
    try {
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
    }
  } finally {
    reader.close();
  }
}

function wrongSource(subject: string, reason: string, cause: unknown): FastFreezeError {
  return new FastFreezeError({ code: 'image', op: 'copy', subject, reason, cause });
}

function damagedCopy(from: Store, damage: Damage): FastFreezeError {
  const where = damage.offset === null ? '' : `at offset ${damage.offset} `;
  return new FastFreezeError({
    code: 'image',
    op: 'copy',
    subject: damage.object,
    reason: `${where}it is damaged: ${damage.reason}`,
    hint: `fastfreeze verify ${from.url} tells whether the source is; the copy was not committed`,
  });
}
