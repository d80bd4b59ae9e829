// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { formatFileUrl } from './file-url.js';

/**
 * The URL of the job `id` below `base`. The ID is the name of the job's folder, character by character, whatever kind of
 * store it is: in a `file:` URL that needs escapes, a bucket's URL and a plain path are literal. Throws `usage`.
 */
export function jobUrl(base: string, id: string): string {
  if (id === '' || id === '.' || id === '..' || /[/\u0000-\u001f\u007f]/u.test(id)) {
    throw new FastFreezeError({
      code: 'usage',
      op: 'understand',
      subject: `--job-id ${JSON.stringify(id)}`,
      reason: 'a job ID is one name: without / and control characters, and neither . nor ..',
      hint: 'choose another ID',
    });
  }
  const name = isEscaped(base) ? formatFileUrl(id).slice('file:'.length) : id;
  return `${base.replace(/\/+$/u, '')}/${name}`;
}

/** The name of the folder that a URL means, as `jobUrl` was given it. */
export function lastName(url: string): string {
  const name =
    url
      .replace(/^cache:|\/+$/giu, '')
      .split('/')
      .at(-1) ?? '';
  if (!isEscaped(url)) return name;
  try {
    return decodeURIComponent(name);
  } catch {
    // A broken escape is told by whoever opens the URL.
    return name;
  }
}

function isEscaped(url: string): boolean {
  return /^file:/iu.test(url);
}
