// SPDX-License-Identifier: Apache-2.0
import type { FastFreezeError } from '../base/errors.js';
import type { ImageIndex } from './index-format.js';
import { CHUNK_HEADER_BYTES, type Cipher, MAX_CHUNK_BYTES, TAG_BYTES } from './layout.js';
import { isPrefix } from './names.js';

/**
 * Every number of an index against every bound, so that nothing that uses it has to. A correct checksum says that the
 * bytes are the writer's, not that the writer was right.
 */
export function checkIndex(index: ImageIndex, cipher: Cipher, refuse: (reason: string) => FastFreezeError): void {
  checkShards(index, refuse);
  checkChunks(index, cipher, refuse);
  checkFiles(index, refuse);
}

type Refuse = (reason: string) => FastFreezeError;

function checkShards({ shards }: ImageIndex, refuse: Refuse): void {
  const seen = new Set<string>();
  shards.forEach((shard, i) => {
    if (!isPrefix(shard.prefix)) throw refuse(`shard ${i} has no valid prefix`);
    if (shard.number < 1 || shard.number > 999_999_999) throw refuse(`shard ${i} has no valid number`);
    if (!Number.isSafeInteger(shard.sizeBytes)) throw refuse(`shard ${i} has no valid size`);
    const id = `${shard.prefix}-${shard.number}`;
    if (seen.has(id)) throw refuse(`it lists the shard ${id} twice`);
    seen.add(id);
  });
}

function checkChunks({ chunks, shards }: ImageIndex, cipher: Cipher, refuse: Refuse): void {
  const tagBytes = cipher === 'none' ? 0 : TAG_BYTES;
  for (let i = 0; i < chunks.length; i++) {
    const rawBytes = chunks.rawBytes(i);
    const storedBytes = chunks.storedBytes(i);
    const { shard, offset } = chunks.place(i);
    const codec = chunks.codec(i);
    if (rawBytes < 1 || rawBytes > MAX_CHUNK_BYTES) throw refuse(`chunk ${i} has no valid length`);
    if (codec === undefined) throw refuse(`chunk ${i} uses a codec that this program does not know`);
    if (chunks.cipher(i) !== cipher) throw refuse(`chunk ${i} is not encrypted as the image is`);
    if (chunks.reserved(i) !== 0) throw refuse(`chunk ${i} uses features that this program does not know`);
    const payloadBytes = storedBytes - tagBytes;
    if (payloadBytes < 1 || payloadBytes > rawBytes || (codec === 'none' && payloadBytes !== rawBytes)) {
      throw refuse(`chunk ${i} has no valid stored length`);
    }
    if (offset + CHUNK_HEADER_BYTES + storedBytes > (shards[shard]?.sizeBytes ?? 0)) {
      throw refuse(`chunk ${i} lies outside of its shard`);
    }
  }
}

function checkFiles({ files, extents, chunks }: ImageIndex, refuse: Refuse): void {
  let next = 0;
  for (const [name, file] of files) {
    const quoted = JSON.stringify(name);
    if (name === '' || name.includes('\0')) throw refuse('it lists a file without a valid name');
    if (file.firstExtent !== next) throw refuse(`the extents of ${quoted} are not where they must be`);
    next += file.extentCount;
    if (next * 3 > extents.length) throw refuse(`the extents of ${quoted} lie outside of it`);
    let sizeBytes = 0;
    for (let at = file.firstExtent * 3; at < next * 3; at += 3) {
      const chunk = extents[at] ?? 0;
      const offset = extents[at + 1] ?? 0;
      const length = extents[at + 2] ?? 0;
      if (chunk >= chunks.length || length < 1 || offset + length > chunks.rawBytes(chunk)) {
        throw refuse(`${quoted} has an extent outside of its chunk`);
      }
      sizeBytes += length;
    }
    if (sizeBytes !== file.sizeBytes) throw refuse(`the extents of ${quoted} do not add up to its size`);
  }
  if (next * 3 !== extents.length) throw refuse('it has extents that belong to no file');
}
