// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import { truncated } from '../store-error.js';
import type { StoreReader } from '../store.js';
import type { ObjectClient } from './object-client.js';

/**
 * Ranges of one object, each a request of its own. Whoever reads asks for whole chunks, several at once, so that neither
 * latency nor the end of one connection costs much: what broke off is fetched again by the chunk.
 */
export function openObjectReader(
  client: ObjectClient,
  name: string,
  sizeBytes: number,
  signal: AbortSignal,
): StoreReader {
  const subject = `${client.url}/${name}`;
  let closed = false;
  return {
    sizeBytes,
    async read(offset, into) {
      if (closed) throw new FastFreezeError({ code: 'aborted', op: 'read', subject, reason: 'closed' });
      if (into.length === 0) return;
      if (offset + into.length > sizeBytes) throw truncated(subject, offset + into.length, sizeBytes);
      const got = await client.get(name, offset, into, { signal });
      if (got < into.length) throw truncated(subject, offset + into.length, offset + got);
    },
    close() {
      closed = true;
    },
  };
}
