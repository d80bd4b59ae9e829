// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import type { Md5 } from '../../linux/md5.js';
import type { Upload, UploadedPart } from '../object/object-client.js';
import { type Pieces, after, sizeOf } from '../pieces.js';
import type { Send } from './gs-transport.js';

/** One part of an upload, as `ObjectClient.putPart` is given it. */
export interface Part {
  readonly number: number;
  readonly offset: number;
  readonly isLast: boolean;
}

/**
 * Sends the parts of resumable uploads. A session takes bytes in order only, and may keep fewer of a request's bytes than
 * it was sent; what it has it says in the `Range` of its 308. So after a lost answer it is asked, never guessed.
 */
export interface PartSender {
  put(upload: Upload, part: Part, bytes: Pieces, signal: AbortSignal): Promise<UploadedPart>;
  /** The last part has made the object; throws unless it is the one that the parts make. */
  verify(upload: Upload, parts: readonly UploadedPart[]): void;
}

/** What a session has: bytes in order from the start, or the object that they became. */
type Held = { readonly bytes: number } | { readonly object: FinishedObject };

interface FinishedObject {
  readonly sizeBytes: number;
  readonly md5: string | undefined;
}

interface Session {
  /** Of the parts before `hashedParts`; it sees each byte once, however often it is sent. */
  readonly hash: Md5;
  hashedParts: number;
  /** The part whose answer may have been lost. */
  triedPart: number;
  md5: string | undefined;
  object: FinishedObject | undefined;
}

export function createPartSender(send: Send): PartSender {
  // As long as its writer has the upload: whoever asks a second time gets the same answer.
  const sessions = new WeakMap<Upload, Session>();

  const begin = async (upload: Upload): Promise<Session> => {
    // Loaded by the first part: whoever only reads or lists needs no native library.
    const { createMd5 } = await import('../../linux/md5.js');
    const session = { hash: createMd5(), hashedParts: 0, triedPart: 0, md5: undefined, object: undefined };
    sessions.set(upload, session);
    return session;
  };

  return {
    async put(upload, part, bytes, signal) {
      const session = sessions.get(upload) ?? (await begin(upload));
      await addToHash(session, part, bytes);
      const sizeBytes = sizeOf(bytes);
      const end = part.offset + sizeBytes;
      const ask = (): Promise<Held> => exchange(send, upload, { range: 'bytes */*', signal });
      const tell = (from: number): Promise<Held> =>
        exchange(send, upload, {
          range: rangeOf(from, end, part.isLast),
          ...(from === end ? {} : { bytes: after(bytes, from - part.offset) }),
          ...(session.md5 === undefined ? {} : { md5: session.md5 }),
          signal,
        });
      const isRepeated = session.triedPart === part.number;
      session.triedPart = part.number;
      let held: Held = isRepeated ? await ask() : { bytes: part.offset };
      for (let told = false; ; told = true) {
        if ('object' in held) {
          if (!part.isLast) throw broken(upload, 'the service took a part for the last one');
          session.object = held.object;
          break;
        }
        const from = held.bytes;
        if (from < part.offset || from > end) {
          throw broken(upload, `the service has ${from} bytes of it, which are not those that were sent`);
        }
        if (from === end && !part.isLast) break;
        held = await tell(from);
        if (told && 'bytes' in held && held.bytes <= from) throw stuck(upload);
      }
      return { number: part.number, sizeBytes, receipt: '' };
    },

    verify(upload, parts) {
      const { object, md5 } = sessions.get(upload) ?? {};
      const sizeBytes = parts.reduce((sum, part) => sum + part.sizeBytes, 0);
      if (object === undefined) throw broken(upload, 'its last part was not sent');
      if (object.sizeBytes !== sizeBytes) {
        throw broken(upload, `the service made ${object.sizeBytes} bytes of the ${sizeBytes} that it was sent`);
      }
      // Objects that the service holds otherwise have no MD5.
      if (object.md5 !== undefined && object.md5 !== md5) {
        throw broken(upload, 'bytes were changed on their way to the service (MD5)');
      }
    },
  };
}

async function addToHash(session: Session, part: Part, bytes: Pieces): Promise<void> {
  if (part.number !== session.hashedParts + 1) return;
  for (const piece of bytes) await session.hash.update(piece);
  session.hashedParts = part.number;
  if (part.isLast) session.md5 = session.hash.digest();
}

function rangeOf(from: number, end: number, isLast: boolean): string {
  const total = isLast ? String(end) : '*';
  return from === end ? `bytes */${total}` : `bytes ${from}-${end - 1}/${total}`;
}

async function exchange(
  send: Send,
  upload: Upload,
  {
    range,
    bytes,
    md5,
    signal,
  }: {
    readonly range: string;
    readonly bytes?: Pieces;
    /** Of the whole object, with its last bytes: the service then refuses others. */
    readonly md5?: string;
    readonly signal: AbortSignal;
  },
): Promise<Held> {
  const answer = await send({
    method: 'PUT',
    url: upload.id,
    headers: {
      'Content-Range': range,
      ...(bytes === undefined ? {} : { 'Content-Type': 'application/octet-stream' }),
      ...(md5 === undefined ? {} : { 'X-Goog-Hash': `md5=${md5}` }),
    },
    ...(bytes === undefined ? {} : { body: bytes }),
    alsoGood: [RESUME_INCOMPLETE],
    signal,
  });
  if (answer.status === RESUME_INCOMPLETE) {
    // Without the header it has nothing.
    const last = /^bytes=0-(\d+)$/u.exec(String(answer.headers['range'] ?? ''))?.[1];
    return { bytes: last === undefined ? 0 : Number(last) + 1 };
  }
  const made = answer.data as { readonly size?: unknown; readonly md5Hash?: unknown } | null;
  const md5Hash = made?.md5Hash;
  return {
    object: { sizeBytes: Number(made?.size), md5: typeof md5Hash === 'string' ? md5Hash : undefined },
  };
}

const RESUME_INCOMPLETE = 308;

function broken(upload: Upload, reason: string): FastFreezeError {
  return new FastFreezeError({ code: 'store', op: 'upload', subject: upload.name, reason });
}

function stuck(upload: Upload): FastFreezeError {
  return new FastFreezeError({
    code: 'store',
    op: 'upload',
    subject: upload.name,
    reason: 'the service takes no more bytes of it',
    passing: true,
  });
}
