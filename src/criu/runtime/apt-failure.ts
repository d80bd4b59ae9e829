// SPDX-License-Identifier: Apache-2.0
import type { ErrorDetails } from '../../base/errors.js';
import { FastFreezeError } from '../../base/errors.js';
import type { ToolResult } from './tool.js';
import { whyFailed } from './tool.js';

const ELSEWHERE =
  'make a bundle on a machine that can: fastfreeze install --bundle FILE, then install --from FILE here';

/** How far a failure reaches: what need not be tried again after it. */
export type FailureScope = 'suite' | 'mirror' | 'machine';

export class AptFailure extends FastFreezeError {
  readonly scope: FailureScope;

  constructor(scope: FailureScope, details: ErrorDetails) {
    super(details);
    this.scope = scope;
  }
}

interface Cause {
  readonly pattern: RegExp;
  readonly scope: FailureScope;
  readonly reason: string;
  readonly hint: string;
}

/** What apt says, and what it means to somebody who did not ask for apt. The first that matches counts. */
const CAUSES: readonly Cause[] = [
  {
    pattern: /No space left on device|Disk quota exceeded|have enough free space/,
    scope: 'machine',
    reason: 'the disk is full',
    hint: 'free 150 MB, or name another folder with --dir DIR',
  },
  {
    pattern: /NO_PUBKEY|EXPKEYSIG|REVKEYSIG|BADSIG|couldn't be verified|required for verification/,
    scope: 'suite',
    reason: "the archive's signature cannot be verified with this machine's keys",
    hint: 'upgrade the package debian-archive-keyring, or use --from FILE --sha256 HEX',
  },
  {
    pattern:
      /Temporary failure resolving|Could not resolve|Could not connect|Cannot initiate|unreachable|timed out|refused/,
    scope: 'mirror',
    reason: 'the package mirror cannot be reached',
    hint: `check the network and apt's proxy settings, or ${ELSEWHERE}`,
  },
  {
    pattern: /Release file\.|is not signed|Failed to fetch \S+\s+[45]\d\d /,
    scope: 'suite',
    reason: 'the mirror does not carry this suite',
    hint: `name a full Debian mirror with --mirror URL, or ${ELSEWHERE}`,
  },
  {
    pattern: /Release file .* (?:expired|not valid yet)/,
    scope: 'suite',
    reason: "the mirror's lists are out of date, or this machine's clock is wrong",
    hint: 'check the date, or name another mirror with --mirror URL',
  },
];

/** An error of a private apt, told as a cause and a remedy. */
export function aptFailure(
  op: string,
  where: { readonly mirror: string; readonly suite: string },
  result: ToolResult,
): AptFailure {
  const subject = `${where.mirror} (${where.suite})`;
  if (result.aborted) return new AptFailure('machine', { code: 'aborted', op, subject, reason: 'stopped on request' });
  if (result.missing) return notDebian();
  const why = whyFailed(result);
  const known = CAUSES.find((cause) => cause.pattern.test(result.stderr));
  if (known === undefined) return new AptFailure('suite', { code: 'host', op, subject, reason: why, hint: ELSEWHERE });
  const reason = `${known.reason} (${why})`;
  return new AptFailure(known.scope, { code: 'host', op, subject, reason, hint: known.hint });
}

/** There is no apt, or it knows no Debian archive. */
export function notDebian(): AptFailure {
  return new AptFailure('machine', {
    code: 'host',
    op: 'install CRIU',
    reason: 'this machine is not Debian (apt knows no Debian archive here), so there is nothing to fetch it from',
    hint: 'on a Debian machine: fastfreeze install --bundle FILE; here: fastfreeze install --from FILE --sha256 HEX',
  });
}
