// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../../base/errors.js';
import { type TreeProcess, residentBytes } from '../../container/tree.js';
import type { Attempt } from './attempt.js';

const PROGRESS_INTERVAL_MS = 200;
/** A store or a CRIU from which nothing is heard for so long is given up. */
const STALL_MS = 180_000;

export interface Reporter {
  expect(tree: readonly TreeProcess[]): void;
  expectedBytes(): number;
  stop(): void;
}

/** Tells how far it is, and calls the checkpoint off when nothing moves any more: a frozen job costs its user time. */
export function reportProgress(attempt: Attempt, files: ReadonlyMap<string, unknown>, startedMs: number): Reporter {
  let expected = 0;
  let moved = '';
  let movedAtMs = startedMs;
  const timer = setInterval(() => {
    const { rawBytes, storedBytes, durableShards } = attempt.writer.stats;
    const nowMs = performance.now();
    const elapsedMs = Math.round(nowMs - startedMs);
    // At the end nothing is added any more, but a store may take long to make durable what it has.
    const position = `${rawBytes} ${storedBytes} ${files.size} ${durableShards}`;
    if (position !== moved) {
      moved = position;
      movedAtMs = nowMs;
    } else if (nowMs - movedAtMs > STALL_MS) attempt.callOff(stalled());
    attempt.progress({ phase: 'dump', doneBytes: rawBytes, storedBytes, totalBytes: expected, elapsedMs });
  }, PROGRESS_INTERVAL_MS);
  return {
    expect: (tree) => (expected = tree.reduce((sum, one) => sum + residentBytes(one.pid), 0)),
    expectedBytes: () => expected,
    stop: () => clearInterval(timer),
  };
}

function stalled(): FastFreezeError {
  return new FastFreezeError({
    code: 'store',
    op: 'finish the checkpoint',
    reason: `nothing has moved for ${STALL_MS / 1000} s`,
    hint: 'the application runs on; see whether the storage hangs',
  });
}
