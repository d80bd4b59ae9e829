// SPDX-License-Identifier: Apache-2.0

/** Why an operation failed, for callers that branch. The list is documented in docs/exit-codes.md. */
export type ErrorCode =
  | 'usage' // the command line or a value in it is wrong
  | 'host' // this machine cannot do it (kernel, namespaces, missing tools)
  | 'criu' // CRIU refused or failed
  | 'unsupported' // the application holds something that cannot be restored exactly
  | 'store' // bytes could not be read or written
  | 'not-found' // an object, job or image that was named does not exist
  | 'image' // an image is damaged, cut short or of an unknown version
  | 'key' // an image is encrypted, and its passphrase missing or wrong
  | 'conflict' // somebody else holds or wrote it first
  | 'app' // the application could not be started, or ended at the wrong moment
  | 'aborted' // asked to stop
  | 'internal'; // a bug of ours

export interface ErrorDetails {
  readonly code: ErrorCode;
  /** What was being done, as a verb phrase: `dump the application`. */
  readonly op: string;
  /** On what: a path, URL, PID or option with its value. */
  readonly subject?: string;
  /** Why, in one line. */
  readonly reason: string;
  /** What to try, in one line. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** The same attempt may succeed a moment later. */
  readonly passing?: boolean;
}

/** The one error class: prints as `Error: cannot OP SUBJECT: REASON`, then `Try: HINT`. */
export class FastFreezeError extends Error {
  override readonly name = 'FastFreezeError';
  readonly code: ErrorCode;
  readonly op: string;
  readonly subject: string | undefined;
  readonly reason: string;
  readonly hint: string | undefined;
  readonly passing: boolean;

  constructor(details: ErrorDetails) {
    const subject = details.subject === undefined ? '' : ` ${details.subject}`;
    super(`cannot ${details.op}${subject}: ${details.reason}`, { cause: details.cause });
    this.code = details.code;
    this.op = details.op;
    this.subject = details.subject;
    this.reason = details.reason;
    this.hint = details.hint;
    this.passing = details.passing ?? false;
  }
}

/** Plain fields of an error, to cross the control socket and `--json`. */
export interface ErrorRecord {
  readonly code: ErrorCode;
  readonly message: string;
  readonly op: string;
  readonly subject?: string;
  readonly reason: string;
  readonly hint?: string;
}

export function toErrorRecord(error: unknown): ErrorRecord {
  const known = asFastFreezeError(error, 'finish');
  return {
    code: known.code,
    message: known.message,
    op: known.op,
    ...(known.subject === undefined ? {} : { subject: known.subject }),
    reason: known.reason,
    ...(known.hint === undefined ? {} : { hint: known.hint }),
  };
}

export function fromErrorRecord(record: ErrorRecord): FastFreezeError {
  return new FastFreezeError(record);
}

/** Wrap anything thrown: one of ours passes through, a system error becomes `store`, the rest `internal`. */
export function asFastFreezeError(error: unknown, op: string, subject?: string): FastFreezeError {
  if (error instanceof FastFreezeError) return error;
  const where = subject === undefined ? {} : { subject };
  if (isSystemError(error)) {
    return new FastFreezeError({ code: 'store', op, ...where, reason: systemReason(error), cause: error });
  }
  const reason = error instanceof Error ? error.message : String(error);
  return new FastFreezeError({ code: 'internal', op, ...where, reason, cause: error });
}

/** An error of the operating system, as Node throws it. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException & { code: string } {
  // By shape, not by class: an error of another realm (a worker, a test runner) is no instance of our Error.
  return isErrorLike(error) && typeof error.code === 'string' && 'syscall' in error;
}

export function hasErrno(error: unknown, ...codes: string[]): boolean {
  return isErrorLike(error) && codes.includes(error.code ?? '');
}

function isErrorLike(error: unknown): error is NodeJS.ErrnoException {
  return typeof error === 'object' && error !== null && 'message' in error;
}

const SYSTEM_REASONS: Readonly<Record<string, string>> = {
  ENOSPC: 'no space is left (ENOSPC)',
  EDQUOT: 'the disk quota is used up (EDQUOT)',
  EROFS: 'the file system is read-only (EROFS)',
  EACCES: 'permission denied (EACCES)',
  EPERM: 'not permitted (EPERM)',
  ENOENT: 'it does not exist (ENOENT)',
  ENOTDIR: 'a part of the path is not a directory (ENOTDIR)',
  EIO: 'the device reported an error (EIO)',
};

function systemReason(error: NodeJS.ErrnoException & { code: string }): string {
  return SYSTEM_REASONS[error.code] ?? `${error.code} in ${error.syscall ?? 'a system call'}`;
}
