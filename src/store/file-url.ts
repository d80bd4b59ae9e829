// SPDX-License-Identifier: Apache-2.0
import { normalize } from 'node:path';
import { FastFreezeError } from '../base/errors.js';

/**
 * The directory behind `file:/abs`, `file:///abs`, `file://localhost/abs` or a plain `/abs`. Percent escapes mean bytes
 * only in a URL: a plain path is taken as it is. `?` and `#` have no meaning for files and stay part of the name.
 */
export function parseFileUrl(url: string): string {
  if (url.startsWith('/')) return checkedPath(url, url);
  const rest = url.slice('file:'.length);
  const withHost = /^\/\/([^/]*)(.*)$/su.exec(rest);
  const host = withHost?.[1] ?? '';
  if (host !== '' && host !== 'localhost') throw bad(url, `it names another machine (${host})`);
  const encoded = withHost?.[2] ?? rest;
  if (!encoded.startsWith('/')) throw bad(url, 'the path is not absolute');
  let path: string;
  try {
    path = decodeURIComponent(encoded);
  } catch {
    throw bad(url, 'it has a broken percent escape (a literal % is written %25)');
  }
  return checkedPath(url, path);
}

/** The URL that `parseFileUrl` turns back into `path`. Spaces and letters of any script stay readable. */
export function formatFileUrl(path: string): string {
  return `file:${path.replace(/[%\u0000-\u001f\u007f]/gu, (char) => encodeURIComponent(char))}`;
}

function checkedPath(url: string, path: string): string {
  if (path.includes('\0')) throw bad(url, 'it contains a NUL byte');
  const normal = normalize(path);
  return normal.length > 1 && normal.endsWith('/') ? normal.slice(0, -1) : normal;
}

function bad(url: string, reason: string): FastFreezeError {
  return new FastFreezeError({
    code: 'usage',
    op: 'use the image URL',
    subject: JSON.stringify(url),
    reason,
    hint: 'give an absolute path, such as file:/var/lib/jobs/my-job',
  });
}
