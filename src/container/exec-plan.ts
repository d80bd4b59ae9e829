// SPDX-License-Identifier: Apache-2.0

/** What the application's root process does before it becomes the program. Crosses a pipe as one line of JSON. */
export interface ExecPlan {
  readonly command: readonly string[];
  readonly terminalPath?: string;
  readonly terminalFds: readonly number[];
  readonly stdinFile?: { readonly path: string; readonly offset: number; readonly flags: number };
  /** Soft limit of open files to put back: Node raises its own to the maximum. */
  readonly openFilesLimit?: number;
  /** Signals that the caller of `run` ignores (nohup), by number. */
  readonly ignoredSignals: readonly number[];
  readonly setEnv: Readonly<Record<string, string>>;
  readonly unsetEnv: readonly string[];
}
