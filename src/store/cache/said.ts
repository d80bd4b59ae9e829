// SPDX-License-Identifier: Apache-2.0

/** Why the cache did not do what it was asked for. */
export interface Failure {
  /**
   * `taken`: somebody has this key, or has begun to write it; `full`: no room, or no money, for more; `denied`: not with this
   * token; `passing`: the next attempt may succeed; `other`.
   */
  readonly kind: 'taken' | 'full' | 'denied' | 'passing' | 'other';
  readonly reason: string;
  /** Asked to wait so long. */
  readonly waitMs?: number;
}

/**
 * GitHub's client tells most failures only by what it logs: a lookup that failed looks like one that found nothing, and of
 * a reservation that was refused it tells the reason in a debug line. `undefined` when nothing was said to have failed.
 */
export function readFailure(lines: readonly string[]): Failure | undefined {
  const reserved = find(lines, /^::debug::Failed to reserve cache: (?:\w*Error: )?(.*)$/);
  const warned = find(
    lines,
    /^::(?:warning|error)::(?:Failed to (?:save|restore): |uploadCacheArchiveSDK: internal error )?(.*)$/,
    /rate limit will reset/,
  );
  const skipped = find(lines, /^(Cache (?:save|restore) skipped: .*)$/) ?? find(lines, /^Failed to save: (.*)$/);
  const reason = reserved ?? warned ?? skipped;
  if (reason === undefined) return undefined;
  const tool = lines.findLast(
    (line) => /^(?:tar|zstd|zstdmt|unzstd|\/\S*\/tar): /.test(line) && !/not recoverable/.test(line),
  );
  const told = tool === undefined ? reason : `${reason} (${tool})`;
  const waitS = Number(find(lines, /rate limit will reset in (\d+) seconds/) ?? 0);
  return { kind: kindOf(told), reason: shorten(told), ...(waitS > 0 ? { waitMs: waitS * 1000 } : {}) };
}

const DOUBTS = {
  packing: 'zstd did not answer, and without it the client sees none of the entries that are there',
  miss: 'the client finds nothing, and does not say that the service has said so',
} as const;

/**
 * Why an outcome that looks like one must not be taken for it. The client asks `zstd` for its version each time: where that says nothing (it
 * was killed, or could not be started), the client packs in another way, whose entries are others, and what is there is not found. And that
 * there is nothing is believed only as the service's answer. `undefined`: there is no doubt.
 */
export function readDoubt(lines: readonly string[], isMiss: boolean): Failure | undefined {
  const asked = lines.findLastIndex((line) => line.startsWith('::debug::zstd version: '));
  // The line before has what it answered; `::debug::` alone is nothing.
  if (!/^::debug::./.test(lines[asked - 1] ?? '')) return { kind: 'passing', reason: DOUBTS.packing };
  if (isMiss && !lines.some((line) => line.startsWith('::debug::Cache not found for version ')))
    return { kind: 'passing', reason: DOUBTS.miss };
  return undefined;
}

function kindOf(reason: string): Failure['kind'] {
  if (/\(409\)|already[ _]exists/i.test(reason)) return 'taken';
  if (/quota|insufficient usage/i.test(reason)) return 'full';
  if (/denied|does not permit|\((?:401|403)\)/i.test(reason)) return 'denied';
  if (PASSING.test(reason)) return 'passing';
  return 'other';
}

const PASSING =
  /rate limit|\((?:408|429|5\d\d)\)|status code (?:408|429|5\d\d)|responded with 5|ECONN|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EHOSTUNREACH|EPIPE|socket|timed? ?out|aborted|Incomplete download|(?:Unable|Failed) to make request|Unexpected token|not valid JSON/i;

function find(lines: readonly string[], pattern: RegExp, except?: RegExp): string | undefined {
  for (const line of lines) {
    const [, text] = pattern.exec(line) ?? [];
    if (text !== undefined && except?.test(text) !== true) return unescape(text);
  }
  return undefined;
}

/** As the runner reads its commands. */
function unescape(text: string): string {
  return text.replaceAll('%0D', '\r').replaceAll('%0A', '\n').replaceAll('%25', '%');
}

/** One line, and no signed address: whoever has one can read or write the entry. */
function shorten(text: string): string {
  const [line = ''] = text.trim().split('\n');
  return line.replace(/(https?:\/\/[^\s?]+)\?\S*/gu, '$1').slice(0, MAX_REASON);
}

const MAX_REASON = 400;
