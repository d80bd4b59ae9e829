// SPDX-License-Identifier: Apache-2.0
import type { JobStatus } from '../engine/config.js';
import type { EngineEvent } from './engine-task.js';

/** What the command has done from its start, or from its restore, until a moment. */
export interface Ran {
  readonly durationMs: number;
  readonly cpuMs: number;
  readonly outputBytes: number;
  /** Of its processes some have ended, or others begun. */
  readonly hasOtherProcesses: boolean;
}

/** What the engine says of a job that runs. */
type Said = Pick<JobStatus, 'cpuSeconds' | 'outputBytes' | 'processes'>;

interface Job {
  status(): Promise<Said>;
}

/** So short a time between a restore and the checkpoint that stops it again is what those two take, not work. */
const LEAST_RUN_MS = 2_000;
/** The kernel counts in steps of this. */
const LEAST_CPU_MS = 10;

/** To be called when the command runs. Resolves to what it has done since; undefined where nobody can say. */
export function measureFrom(job: Job): () => Promise<Ran | undefined> {
  const startedAtMs = Date.now();
  const before = statusOf(job);
  return async () => {
    const [first, now] = [await before, await statusOf(job)];
    if (first === undefined || now === undefined) return undefined;
    return {
      durationMs: Date.now() - startedAtMs,
      cpuMs: Math.round((now.cpuSeconds - first.cpuSeconds) * 1000),
      outputBytes: now.outputBytes - first.outputBytes,
      hasOtherProcesses: pidsOf(first) !== pidsOf(now),
    };
  };
}

/**
 * Why a run has brought its command no further, in words that follow "in this one"; undefined: it has, as far as is known. Whatever has used the
 * least CPU time, or written a byte, counts as progress: a chain must not be ended for a command that is only slow.
 */
export function whyNoProgress(events: readonly EngineEvent[]): string | undefined {
  const saved = events.findLastIndex((event) => event.type === 'checkpoint');
  if (saved < 0) return 'there is no new checkpoint';
  const asked = events.slice(0, saved).findLast((event) => event.type === 'asked');
  const ran = asked?.ran;
  if (ran === undefined) return undefined;
  const seconds = (ran.durationMs / 1000).toFixed(1);
  if (ran.durationMs < LEAST_RUN_MS) return `the command ran for ${seconds} s`;
  // The CPU time of a child that nobody has waited for is lost, but it has ended.
  if (ran.cpuMs >= LEAST_CPU_MS || ran.outputBytes > 0 || ran.hasOtherProcesses) return undefined;
  return `the command has neither computed nor written anything in ${seconds} s`;
}

function pidsOf({ processes }: Said): string {
  return processes.map(({ pid }) => pid).join();
}

async function statusOf(job: Job): Promise<Said | undefined> {
  try {
    return await job.status();
  } catch {
    return undefined; // It has ended by now.
  }
}
