// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import type { EngineDeadline } from './engine-task.js';
import type { Inputs } from './inputs.js';

const WORKER = 'Runner.Worker';
/** The kernel's unit of a process's start; the same on every Linux that a runner has. */
const MS_PER_TICK = 10;
/**
 * Of the job's time, what must be left when the image is safe: for the steps that follow, and because GitHub's clock started before the
 * runner's process did. Five minutes, which is what a cancelled job gets at most; of a short job a twelfth.
 */
const MOST_RESERVE_MS = 300_000;
const RESERVE_PART = 12;

export interface JobTime {
  readonly startedAtMs: number;
  /** Who says so. */
  readonly by: 'input' | 'runner' | 'step';
}

/** When the job started, as well as an action can know. */
export function jobTime({ jobStartedAtMs }: Pick<Inputs, 'jobStartedAtMs'>, nowMs: number): JobTime {
  if (jobStartedAtMs !== undefined) return { startedAtMs: jobStartedAtMs, by: 'input' };
  const worker = startOf(process.ppid, WORKER);
  return worker === undefined ? { startedAtMs: nowMs, by: 'step' } : { startedAtMs: worker, by: 'runner' };
}

export function deadlineOf(
  { timeoutMs, checkpointBeforeMs }: Pick<Inputs, 'timeoutMs' | 'checkpointBeforeMs'>,
  { startedAtMs }: JobTime,
): EngineDeadline {
  const endMs = startedAtMs + timeoutMs;
  if (checkpointBeforeMs !== 'auto') return { atMs: endMs - checkpointBeforeMs, of: 'start' };
  return { atMs: endMs - Math.min(MOST_RESERVE_MS, timeoutMs / RESERVE_PART), of: 'durable' };
}

/** Milliseconds since the epoch at which a process of that name began; undefined for another, and where it is not seen. */
export function startOf(pid: number, name: string): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    if (stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')')) !== name) return undefined;
    const bootSeconds = Number(/^btime (\d+)$/m.exec(readFileSync('/proc/stat', 'latin1'))?.[1]);
    return bootSeconds * 1000 + (ticksIn(stat) ?? NaN) * MS_PER_TICK || undefined;
  } catch {
    // No such process, or none that we may see: a job container has the runner outside.
    return undefined;
  }
}

/** Tells a process from another that got its PID later; undefined when there is none. */
export function startTicks(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const state = stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
    return state === 'Z' ? undefined : ticksIn(stat);
  } catch {
    return undefined; // It has ended.
  }
}

function ticksIn(stat: string): number | undefined {
  const text = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  return text === undefined ? undefined : Number(text);
}
