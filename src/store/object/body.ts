// SPDX-License-Identifier: Apache-2.0
import { Readable } from 'node:stream';
import { collectYoung } from '../../linux/garbage.js';
import { FastFreezeError } from '../../base/errors.js';
import { MAX_SMALL_BYTES, type RangeBody } from './object-client.js';

/** What part of an object an answer holds, out of its `Content-Range`. */
export interface AnsweredRange {
  readonly start: number;
  /** Of the whole object; undefined where the service does not say. */
  readonly totalBytes: number | undefined;
}

export function parseContentRange(header: string | undefined): AnsweredRange | undefined {
  const [, start, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/u.exec(header ?? '') ?? [];
  if (start === undefined) return undefined;
  return { start: Number(start), totalBytes: total === '*' ? undefined : Number(total) };
}

/**
 * Read a response's body into memory of the caller's. Resolves to its length. A body that is shorter than announced, or
 * that stalls, is a passing error: a clean end proves nothing.
 */
export async function fillFromStream(
  body: unknown,
  announcedBytes: number | undefined,
  into: Uint8Array,
  idleMs: number,
): Promise<number> {
  if (!(body instanceof Readable)) throw broken('the answer has no body');
  if (announcedBytes !== undefined && announcedBytes > into.length) {
    body.destroy();
    throw broken('the service sent more than was asked for');
  }
  let filled = 0;
  let idle = setTimeout(stall, idleMs);
  function stall(): void {
    (body as Readable).destroy(broken(`nothing came for ${Math.round(idleMs / 1000)} s`));
  }
  try {
    for await (const piece of body as AsyncIterable<Buffer>) {
      clearTimeout(idle);
      idle = setTimeout(stall, idleMs);
      if (filled + piece.length > into.length) throw broken('the service sent more than was asked for');
      into.set(piece, filled);
      filled += piece.length;
      dropped(piece.length);
    }
  } finally {
    clearTimeout(idle);
  }
  if (announcedBytes !== undefined && filled < announcedBytes) throw broken('the answer ended early');
  return filled;
}

/** A response's body to be read as it is wanted. Only while somebody waits for bytes is a silence held against it. */
export function rangeBody(body: unknown, idleMs: number): RangeBody {
  if (!(body instanceof Readable)) throw broken('the answer has no body');
  // Between two reads nobody else listens, and an error that nobody hears ends the process.
  let failure: Error | undefined;
  body.on('error', (error) => (failure = error));
  const pieces = (body as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  let left: Uint8Array = Buffer.alloc(0);
  const nextPiece = async (): Promise<Uint8Array> => {
    const idle = setTimeout(() => body.destroy(broken(`nothing came for ${Math.round(idleMs / 1000)} s`)), idleMs);
    try {
      const next = await pieces.next();
      if (next.done === true) throw failure ?? broken('the answer ended early');
      return next.value;
    } finally {
      clearTimeout(idle);
    }
  };
  return {
    async read(into) {
      for (let filled = 0; filled < into.length;) {
        if (left.length === 0) left = await nextPiece();
        const some = left.subarray(0, into.length - filled);
        into.set(some, filled);
        filled += some.length;
        left = left.subarray(some.length);
        dropped(some.length);
      }
    },
    close: () => void body.destroy(),
  };
}

/** Read the whole body of a small object. One that is larger than any of ours is refused. */
export async function readSmall(
  subject: string,
  body: unknown,
  announcedBytes: number | undefined,
  idleMs: number,
): Promise<Uint8Array> {
  if ((announcedBytes ?? 0) > MAX_SMALL_BYTES) {
    if (body instanceof Readable) body.destroy();
    const reason = `with ${announcedBytes} bytes it is none of ours`;
    throw new FastFreezeError({ code: 'image', op: 'read', subject, reason });
  }
  const bytes = Buffer.alloc(announcedBytes ?? MAX_SMALL_BYTES);
  return bytes.subarray(0, await fillFromStream(body, announcedBytes, bytes, idleMs));
}

let droppedBytes = 0;

/**
 * Every 64 KiB that a connection brings lie in memory of their own, of which the garbage collector knows only a small
 * object: left to itself it would let tens of megabytes pile up.
 */
function dropped(bytes: number): void {
  droppedBytes += bytes;
  if (droppedBytes < COLLECT_BYTES) return;
  droppedBytes = 0;
  collectYoung();
}

const COLLECT_BYTES = 4 << 20;

function broken(reason: string): FastFreezeError {
  return new FastFreezeError({ code: 'store', op: 'read an answer', reason, passing: true });
}
