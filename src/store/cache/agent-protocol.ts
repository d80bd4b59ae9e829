// SPDX-License-Identifier: Apache-2.0
import type { Failure } from './said.js';

/** The path that every entry is saved and restored under: it is part of an entry's version, so it is the same everywhere. */
export const OBJECT_PATH = 'fastfreeze-object';

/** To the process that has GitHub's client in it, one at a time. */
export type AgentRequest =
  /** For each, the newest key that begins so. */
  | { readonly op: 'lookup'; readonly prefixes: readonly string[] }
  /** Make an entry of the object that lies in the process's directory. */
  | { readonly op: 'save'; readonly key: string }
  /** Bring an entry's object into the process's directory. */
  | { readonly op: 'restore'; readonly key: string };

/** One for each key. */
export interface AgentAnswer {
  readonly results: readonly AgentResult[];
}

export type AgentResult =
  /** What was found, or saved; null for what is not there. */
  { readonly key: string | null } | { readonly failure: Failure };
