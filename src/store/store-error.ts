// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';

/** A failed file operation in our words, with what to do about the usual ones. */
export function storeError(error: unknown, op: string, subject: string): FastFreezeError {
  if (hasCode(error, 'ENOENT') && op === 'read') return notFound(subject, error);
  const known = asFastFreezeError(ofThisRealm(error), op, subject);
  const hint = hintFor(error);
  if (known === error || hint === undefined) return known;
  return new FastFreezeError({ code: known.code, op, subject, reason: known.reason, hint, cause: error });
}

export function notFound(subject: string, cause?: unknown): FastFreezeError {
  return new FastFreezeError({ code: 'not-found', op: 'read', subject, reason: 'it does not exist', cause });
}

export function truncated(subject: string, needed: number, present: number): FastFreezeError {
  return new FastFreezeError({
    code: 'image',
    op: 'read',
    subject,
    reason: `it is truncated: ${needed} bytes are needed, ${present} are there`,
  });
}

/** Names go into paths and URLs: what is allowed is so narrow that neither can be escaped from. */
export function assertName(name: string): void {
  if (/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$/.test(name)) return;
  throw new FastFreezeError({
    code: 'internal',
    op: 'name an object',
    subject: JSON.stringify(name),
    reason: 'a name is 1 to 200 of A-Z a-z 0-9 . _ - and does not start with a dot',
  });
}

/** Whether a file operation failed with one of these codes, whichever realm the error was made in. */
export function hasCode(error: unknown, ...codes: string[]): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && codes.includes(String(error.code));
}

/** Node's own errors are no `Error` of ours where our code runs in a context of its own, as under jest. */
function ofThisRealm(error: unknown): unknown {
  if (error instanceof Error || typeof error !== 'object' || error === null || !('code' in error)) return error;
  const message = 'message' in error ? String(error.message) : String(error.code);
  return Object.assign(new Error(message, { cause: error }), error, { code: String(error.code) });
}

function hintFor(error: unknown): string | undefined {
  if (hasCode(error, 'ENOSPC', 'EDQUOT')) return 'free space there, lower --keep, or choose another --image-url';
  if (hasCode(error, 'EROFS', 'EACCES', 'EPERM')) return 'choose an --image-url that this user can write';
  if (hasCode(error, 'ENOENT')) return 'choose an --image-url where directories can be made';
  if (hasCode(error, 'ENOTDIR')) return 'choose an --image-url that is a directory';
  if (hasCode(error, 'EMFILE', 'ENFILE')) return 'raise the limit of open files (ulimit -n)';
  return undefined;
}
