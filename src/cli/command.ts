// SPDX-License-Identifier: Apache-2.0

/** One command of the tool. Each lives in a file of its own and is loaded only when it is asked for. */
export interface Command {
  readonly name: string;
  /** One line for `fastfreeze --help`. */
  readonly summary: string;
  /** The whole text of `fastfreeze NAME --help`, exit status included. */
  readonly help: string;
  /** Those of `args` that are not an application's; by default, what comes before `--`. */
  ownWords?(args: readonly string[]): Promise<readonly string[]>;
  /** The text for one of its verbs, where that has its own; undefined for all others. */
  helpOf?(args: readonly string[]): Promise<string | undefined>;
  /**
   * Do it. `args` are the words after the command's name.
   * Resolves to the process's exit code; a thrown FastFreezeError is printed as `Error:` / `Try:` by main.
   */
  run(args: readonly string[]): Promise<number>;
}
