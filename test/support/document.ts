// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The fenced blocks of a document, as lines. */
export function blocks(document: string): string[][] {
  const text = readFileSync(join(process.cwd(), document), 'utf8');
  return [...text.matchAll(/^```[^\n]*\n(.*?)^```/gms)].map((match) => (match[1] ?? '').split('\n'));
}
