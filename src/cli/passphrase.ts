// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { FastFreezeError, hasErrno } from '../base/errors.js';
import { type ParsedArguments, textOption } from './arguments.js';

const VARIABLE = 'FF_PASSPHRASE';
const MAX_BYTES = 4096;

let variable: string | undefined;

/** Take the variable out of our environment, which every child of ours, and so the application, would inherit. */
export function takePassphrase(): void {
  variable = process.env[VARIABLE];
  Reflect.deleteProperty(process.env, VARIABLE);
}

/** For the environment of a child that is to have the variable all the same. */
export function givenVariable(): Record<string, string> {
  return variable === undefined ? {} : { [VARIABLE]: variable };
}

/**
 * `--passphrase-file FILE`, else FF_PASSPHRASE; undefined where neither is given. A line end at the file's end is not part of
 * it. An empty variable is refused: a secret that is not there must not mean that nothing is encrypted.
 */
export function passphraseOption(parsed: ParsedArguments): string | undefined {
  const path = textOption(parsed, 'passphrase-file');
  if (path === undefined) return variable === undefined ? undefined : checked(variable, VARIABLE);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const reason = hasErrno(error, 'ENOENT') ? 'there is no such file' : error instanceof Error ? error.message : '?';
    throw refuse(`--passphrase-file ${path}`, reason);
  }
  return checked(text.replace(/\r?\n$/u, ''), `--passphrase-file ${path}`);
}

function checked(passphrase: string, subject: string): string {
  if (passphrase === '') throw refuse(subject, 'it is empty');
  if (Buffer.byteLength(passphrase) > MAX_BYTES) throw refuse(subject, `it is longer than ${MAX_BYTES} bytes`);
  if (passphrase.includes('\0') || passphrase.includes('\ufffd')) throw refuse(subject, 'it is not text in UTF-8');
  return passphrase;
}

function refuse(subject: string, reason: string): FastFreezeError {
  const hint = 'give a file that holds the passphrase, such as one made by: openssl rand -base64 32';
  return new FastFreezeError({ code: 'usage', op: 'use', subject, reason, hint });
}
