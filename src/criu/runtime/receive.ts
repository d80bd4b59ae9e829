// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';

const OP = 'fetch the bundle';
/** A bundle is about 5 MB; an endless answer must not fill the disk. */
const LARGEST_BYTES = 512 * 1024 * 1024;
const WHOLE_TIMEOUT_MS = 10 * 60 * 1000;
const SILENCE_MS = 30_000;

/**
 * Copy a bundle (path, file: or http(s): URL) to `target` and verify its sum on the way. Only the copy is
 * used afterwards, so that what was verified is what is unpacked.
 */
export async function receiveBundle(from: string, target: string, sha256: string, signal?: AbortSignal): Promise<void> {
  const expected = parseSum(sha256);
  const stop = new AbortController();
  const abort = (): void => stop.abort(new Error('stopped on request'));
  signal?.addEventListener('abort', abort, { once: true });
  if (signal?.aborted === true) abort();
  const whole = setTimeout(() => stop.abort(new Error('it took more than 10 minutes')), WHOLE_TIMEOUT_MS);
  try {
    const actual = await copy(await openSource(from, stop), target, stop);
    if (actual !== expected) throw wrongSum(from, expected, actual);
  } catch (error) {
    throw asFetchError(stop.signal.aborted ? stop.signal.reason : error, from);
  } finally {
    clearTimeout(whole);
    signal?.removeEventListener('abort', abort);
  }
}

/** A sum as it is printed. Throws `usage` where it is none. */
export function parseSum(sha256: string): string {
  const sum = sha256.trim().toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(sum)) throw badSum(sha256);
  return sum;
}

async function openSource(from: string, stop: AbortController): Promise<AsyncIterable<Uint8Array>> {
  if (/^file:/i.test(from)) return await openFile(fileURLToPath(from), from);
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(from)) return await openFile(from, from);
  if (!/^https?:/i.test(from)) throw fetchError(from, 'only paths, file: and http(s): URLs are understood');
  const silence = setTimeout(() => stop.abort(new Error('the server does not answer')), SILENCE_MS);
  try {
    const response = await fetch(from, { signal: stop.signal, redirect: 'follow' });
    if (!response.ok || response.body === null) throw fetchError(from, `the server answered ${response.status}`);
    return response.body;
  } finally {
    clearTimeout(silence);
  }
}

async function openFile(path: string, from: string): Promise<AsyncIterable<Uint8Array>> {
  // Reading a FIFO or a terminal would wait for ever.
  if (!(await stat(path)).isFile()) throw fetchError(from, 'it is not a file');
  return createReadStream(path);
}

async function copy(source: AsyncIterable<Uint8Array>, target: string, stop: AbortController): Promise<string> {
  const hash = createHash('sha256');
  const file = await open(target, 'wx', 0o600);
  const silence = setTimeout(() => stop.abort(new Error('no data came for 30 seconds')), SILENCE_MS);
  let sizeBytes = 0;
  try {
    for await (const chunk of source) {
      stop.signal.throwIfAborted();
      silence.refresh();
      sizeBytes += chunk.length;
      if (sizeBytes > LARGEST_BYTES) throw fetchError(target, 'it is larger than any bundle (512 MB)');
      hash.update(chunk);
      await file.writeFile(chunk);
    }
  } finally {
    clearTimeout(silence);
    await file.close();
  }
  return hash.digest('hex');
}

function asFetchError(error: unknown, from: string): FastFreezeError {
  if (error instanceof FastFreezeError) return error;
  // `fetch failed` says nothing; the cause does.
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (error instanceof TypeError) return fetchError(from, cause instanceof Error ? cause.message : String(cause));
  return asFastFreezeError(error, OP, from);
}

function fetchError(from: string, reason: string): FastFreezeError {
  const hint = 'check the address; or download the file by other means and give its path';
  return new FastFreezeError({ code: 'store', op: OP, subject: from, reason, hint });
}

function badSum(sha256: string): FastFreezeError {
  const reason = 'a SHA-256 has 64 hexadecimal digits';
  const hint = 'the sum that `install --bundle` printed; it is also in FILE.sha256';
  return new FastFreezeError({ code: 'usage', op: 'use --sha256', subject: sha256, reason, hint });
}

function wrongSum(from: string, expected: string, actual: string): FastFreezeError {
  return new FastFreezeError({
    code: 'image',
    op: 'use the bundle',
    subject: from,
    reason: `its SHA-256 is ${actual}, not ${expected}: it is damaged, cut short or another file`,
    hint: 'fetch it again, and take the sum from where the bundle was made',
  });
}
