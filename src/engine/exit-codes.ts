// SPDX-License-Identifier: Apache-2.0

/** Exit codes of our own; docs/exit-codes.md explains each. An application's own code passes through unchanged. */
export const EXIT = {
  ok: 0,
  /** The command line is wrong. */
  usage: 2,
  /** The application was stopped by a successful checkpoint (128 + SIGKILL, as FastFreeze has it). */
  checkpointed: 137,
  /** Something failed before the application was ready, or a checkpoint failed. */
  failed: 170,
  /** The image could not be fetched or restored; nothing runs. */
  restoreFailed: 171,
} as const;
