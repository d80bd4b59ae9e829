// SPDX-License-Identifier: Apache-2.0
import { closeSync, openSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import type { JobEvent } from './event.js';

/** What is known of a job so far; counts since its `run` began. Sizes are bytes, durations seconds, times Unix seconds. */
export interface JobTotals {
  readonly job: string;
  readonly startedAt: number;
  running: boolean;
  readonly checkpoints: Counts;
  readonly restores: Counts;
  lastCheckpoint?: {
    readonly at: number;
    readonly generation: number;
    readonly frozen: number;
    readonly durable: number;
    readonly rawBytes: number;
    readonly storedBytes: number;
  };
  lastRestore?: { readonly seconds: number; readonly rawBytes: number };
  exitCode?: number;
}

interface Counts {
  success: number;
  error: number;
}

export function newTotals(job: string, startedAtMs: number): JobTotals {
  const none = (): Counts => ({ success: 0, error: 0 });
  return { job, startedAt: startedAtMs / 1000, running: true, checkpoints: none(), restores: none() };
}

/** Take an event into the totals; false when it changes none of them. */
export function count(totals: JobTotals, event: JobEvent, nowMs: number): boolean {
  switch (event.action) {
    case 'checkpoint':
      totals.checkpoints[event.error === undefined ? 'success' : 'error']++;
      if (event.error !== undefined || event.transfer === undefined) return true;
      totals.lastCheckpoint = {
        at: nowMs / 1000,
        generation: event.generation ?? 0,
        frozen: (event.frozenMs ?? 0) / 1000,
        durable: event.durationMs / 1000,
        rawBytes: event.transfer.rawBytes,
        storedBytes: event.transfer.storedBytes,
      };
      return true;
    case 'restore':
      totals.restores[event.error === undefined ? 'success' : 'error']++;
      if (event.error === undefined && event.transfer !== undefined) {
        totals.lastRestore = { seconds: event.durationMs / 1000, rawBytes: event.transfer.rawBytes };
      }
      return true;
    case 'run':
      totals.running = false;
      totals.exitCode = event.exitCode;
      return true;
    case 'fetch_manifest':
    case 'run_from_scratch':
    case 'checkpoint_start':
      return false;
  }
}

/** The totals as OpenMetrics text, which Prometheus' node_exporter reads as well (its textfile collector). */
export function toOpenMetrics(totals: JobTotals): string {
  const label = `name="${totals.job.replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n')}"`;
  const lines: string[] = [];
  const family = (name: string, type: 'counter' | 'gauge', help: string, samples: [string, number][]): void => {
    if (samples.length === 0) return;
    lines.push(`# TYPE fastfreeze_${name} ${type}`);
    const unit = /_(seconds|bytes)$/.exec(name)?.[1];
    if (unit !== undefined) lines.push(`# UNIT fastfreeze_${name} ${unit}`);
    lines.push(`# HELP fastfreeze_${name} ${help}`);
    const suffix = type === 'counter' ? '_total' : '';
    for (const [labels, value] of samples) lines.push(`fastfreeze_${name}${suffix}{${label}${labels}} ${value}`);
  };
  const gauge = (name: string, help: string, value: number | undefined): void =>
    family(name, 'gauge', help, value === undefined ? [] : [['', value]]);
  const outcomes = ({ success, error }: Counts): [string, number][] => [
    [',outcome="success"', success],
    [',outcome="error"', error],
  ];
  const { lastCheckpoint, lastRestore } = totals;
  gauge('job_running', 'Whether the job runs.', Number(totals.running));
  gauge('job_start_timestamp_seconds', 'When run started.', totals.startedAt);
  gauge('job_exit_code', 'Exit code of run.', totals.exitCode);
  family('checkpoints', 'counter', 'Checkpoints tried since run started.', outcomes(totals.checkpoints));
  family('restores', 'counter', 'Restores tried since run started.', outcomes(totals.restores));
  gauge('checkpoint_timestamp_seconds', 'When the last checkpoint became durable.', lastCheckpoint?.at);
  gauge('checkpoint_generation', 'Generation of the last checkpoint.', lastCheckpoint?.generation);
  gauge('checkpoint_frozen_seconds', 'How long the last checkpoint stopped the application.', lastCheckpoint?.frozen);
  gauge(
    'checkpoint_durable_seconds',
    'From the start of the last checkpoint until it was durable.',
    lastCheckpoint?.durable,
  );
  gauge('checkpoint_raw_bytes', 'Size of the last checkpoint before compression.', lastCheckpoint?.rawBytes);
  gauge('checkpoint_stored_bytes', 'What the last checkpoint added to the store.', lastCheckpoint?.storedBytes);
  gauge('restore_duration_seconds', 'How long the restore took.', lastRestore?.seconds);
  gauge('restore_raw_bytes', 'Size of what was restored, before compression.', lastRestore?.rawBytes);
  return `${lines.join('\n')}\n# EOF\n`;
}

/** Write the text in one step: whoever reads the file sees all of the old or all of the new. After a crash it may be gone. */
export function replaceFile(path: string, text: string): void {
  const temporary = temporaryFor(path);
  try {
    writeFileSync(temporary, text, { mode: 0o644 });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Throws the system's error where `replaceFile` could not write. What is there stays as it is. */
export function refuseUnwritable(path: string): void {
  const temporary = temporaryFor(path);
  writeFileSync(temporary, '');
  rmSync(temporary, { force: true });
  // Nothing takes the place of a directory.
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) closeSync(openSync(path, 'a'));
}

function temporaryFor(path: string): string {
  return `${path}.${process.pid}.tmp`;
}
