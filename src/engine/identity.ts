// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { type Identity, type OwnIds, findOwnIds } from '../container/own-ids.js';

/** A fresh start as a normal user: with its own ids where subordinate ids allow it, else (undefined) as uid 0. */
export async function ownIdsForStart(log: Logger): Promise<OwnIds | undefined> {
  // As FastFreeze has it: for images that must restore where there are no subordinate ids.
  if (process.env['FF_FAKE_ROOT'] === '1') return undefined;
  const found = await findOwnIds();
  if (found.state === 'usable') return found;
  const message = `the application sees uid 0: ${found.reason}`;
  if (found.state === 'refused') log.warn(`${message} (${found.hint})`);
  else log.debug(message);
  return undefined;
}

/** The ids that an image wants back. What was dumped as one user cannot be restored as another. */
export async function ownIdsForRestore(wanted: Identity | undefined, container: boolean): Promise<OwnIds | undefined> {
  if (wanted === undefined) return undefined;
  const { uid, gid } = wanted;
  if (uid !== process.getuid?.() || gid !== process.getgid?.()) {
    const own = `uid ${process.getuid?.() ?? '?'}, gid ${process.getgid?.() ?? '?'}`;
    throw refusal('image', wanted, `this is ${own}`, `run as the user with uid ${uid} and gid ${gid}`);
  }
  if (!container) throw refusal('host', wanted, '--no-container leaves ids as they are', 'leave out --no-container');
  const found = await findOwnIds();
  if (found.state === 'usable') return found;
  throw refusal('host', wanted, found.reason, found.hint);
}

function refusal(code: 'image' | 'host', wanted: Identity, reason: string, hint: string): FastFreezeError {
  return new FastFreezeError({
    code,
    op: 'restore the application',
    subject: `as uid ${wanted.uid}, gid ${wanted.gid}`,
    reason,
    hint,
  });
}
