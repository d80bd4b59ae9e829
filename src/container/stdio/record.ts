// SPDX-License-Identifier: Apache-2.0

/** How the application's standard streams were connected, as the image remembers it. */
export interface StreamRecord {
  /** `pipe` and `terminal` are reconnected to ours at restore; `file` the application opened itself. */
  readonly kind: 'pipe' | 'terminal' | 'file';
  readonly role: 'stdin' | 'stdout' | 'stderr' | 'terminal';
  /** The application's descriptors on it when it started. */
  readonly fds: readonly number[];
  /** CRIU's name of the resource: `pipe:[INODE]`, `tty[RDEV:DEV]`; empty for a file. */
  readonly resource: string;
  /** stdin: its end had been passed on. */
  readonly ended: boolean;
  /** Bytes that travel in the image: stdin not yet read by the application, output not yet written by us. */
  readonly pendingBytes: number;
  /** `--output` / `--error`: our file and its exact length at the checkpoint. */
  readonly file?: { readonly path: string; readonly lengthBytes: number };
}

/** Name under which a stream's pending bytes lie in the image. */
export function pendingName(role: StreamRecord['role']): string {
  return `fastfreeze-${role}.pending`;
}
