// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import { WHAT_A_CONTAINER_NEEDS } from '../../base/hints.js';
import type { Candidate } from './candidates.js';
import { chosenCandidate, otherCandidates } from './candidates.js';
import { openCheckCache } from './check-cache.js';
import type { Verdict } from './check.js';
import { NO_USER_NAMESPACE, checkCriu } from './check.js';

/** A CRIU that works on this machine. */
export interface CriuRuntime {
  /** The start of the argument list: `[path]`, or the runtime's own loader and its arguments. */
  readonly command: readonly string[];
  readonly version: string;
  readonly source: 'FF_CRIU' | 'package' | 'PATH' | 'installed';
  /** The root folder of an installed runtime. */
  readonly root?: string;
  /** Where an installed runtime keeps its libraries, the codecs among them. */
  readonly libraryDir?: string;
  /** What it cannot do, although it works. */
  readonly warning?: string;
}

export interface FindOptions {
  readonly env: NodeJS.ProcessEnv;
  /** CRIU will run as real root, not in a user namespace. */
  readonly privileged: boolean;
  readonly signal?: AbortSignal;
  /** Where good answers are remembered; for tests. */
  readonly cacheDirectory?: string;
}

/** The CRIU to use: $FF_CRIU, else the first that works of the package's own, PATH and the installed ones. Throws when there is none. */
export async function findCriu(options: FindOptions): Promise<CriuRuntime> {
  const chosen = await chosenCandidate(options.env);
  if (chosen !== undefined) {
    const verdict = await tryCandidate(chosen, options);
    // Somebody who names a CRIU wants that one: falling back to another would hide the mistake.
    if (!verdict.works) throw chosenFails(chosen, verdict.reason);
    return toRuntime(chosen, verdict);
  }
  const refusals: string[] = [];
  let secondBest: CriuRuntime | undefined;
  for (const candidate of await otherCandidates(options.env)) {
    const verdict = await tryCandidate(candidate, options);
    if (!verdict.works) refusals.push(`${candidate.path}: ${verdict.reason}`);
    else if (verdict.warning === undefined) return toRuntime(candidate, verdict);
    else secondBest ??= toRuntime(candidate, verdict);
  }
  if (secondBest !== undefined) return secondBest;
  throw noneWorks(refusals);
}

/** The verdict on one candidate, from memory where it was good before. */
export async function tryCandidate(candidate: Candidate, options: FindOptions): Promise<Verdict> {
  if (candidate.refused !== undefined) return { works: false, reason: candidate.refused };
  const { env, privileged, cacheDirectory } = options;
  const cache = openCheckCache({
    env,
    privileged,
    ...(cacheDirectory === undefined ? {} : { directory: cacheDirectory }),
  });
  const known = await cache.read(candidate.path);
  if (known !== undefined) return { works: true, ...known };
  const verdict = await checkCriu(candidate.command, options);
  if (verdict.works) {
    const { version, warning } = verdict;
    await cache.write(candidate.path, { version, ...(warning === undefined ? {} : { warning }) });
  }
  return verdict;
}

export function toRuntime(candidate: Candidate, verdict: Verdict & { works: true }): CriuRuntime {
  return {
    command: candidate.command,
    version: verdict.version,
    source: candidate.source,
    ...(candidate.root === undefined ? {} : { root: candidate.root }),
    ...(candidate.libraryDir === undefined ? {} : { libraryDir: candidate.libraryDir }),
    ...(verdict.warning === undefined ? {} : { warning: verdict.warning }),
  };
}

function chosenFails(chosen: Candidate, reason: string): FastFreezeError {
  return new FastFreezeError({
    code: 'host',
    op: 'use the CRIU named by FF_CRIU',
    subject: chosen.path,
    reason,
    hint: 'unset FF_CRIU to let fastfreeze look for one, or name one that works',
  });
}

function noneWorks(refusals: readonly string[]): FastFreezeError {
  const reason =
    refusals.length === 0 ? 'there is no CRIU on this machine' : `none works here (${refusals.join('; ')})`;
  const hint = refusals.some((one) => one.includes(NO_USER_NAMESPACE))
    ? `fastfreeze doctor says what forbids it; ${WHAT_A_CONTAINER_NEEDS}`
    : 'fastfreeze install';
  return new FastFreezeError({ code: 'host', op: 'find CRIU', reason, hint });
}
