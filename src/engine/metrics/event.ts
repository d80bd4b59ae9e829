// SPDX-License-Identifier: Apache-2.0
import { randomInt } from 'node:crypto';

/** How a step went; durations are milliseconds. */
export interface Outcome {
  readonly durationMs: number;
  /** Undefined for success. */
  readonly error?: string;
}

/** What was moved; sizes are bytes. */
export interface Transfer {
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly durationMs: number;
  readonly shards: readonly ShardTransfer[];
}

/** One object of an image: stored bytes, and from its first byte to its end. */
export interface ShardTransfer {
  readonly sizeBytes: number;
  readonly durationMs: number;
}

/** What happens to a job that somebody may want to count. */
export type JobEvent =
  | ({
      readonly action: 'fetch_manifest';
      readonly manifest?: 'good' | 'version_mismatch' | 'not_found' | 'finished';
      readonly runMode?: 'restore' | 'run_from_scratch';
    } & Outcome)
  | ({ readonly action: 'run_from_scratch' } & Outcome)
  | ({ readonly action: 'restore'; readonly transfer?: Transfer; readonly sinceCheckpointMs?: number } & Outcome)
  | { readonly action: 'checkpoint_start'; readonly imageUrl: string }
  | ({
      readonly action: 'checkpoint';
      readonly transfer?: Transfer;
      readonly generation?: number;
      readonly frozenMs?: number;
    } & Outcome)
  | ({ readonly action: 'run'; readonly exitCode: number } & Outcome);

/** What all events of one process have in common. */
export interface EventContext {
  readonly invocationId: string;
  readonly cliArgs: readonly string[];
  /** Since this process started. */
  readonly elapsedMs: number;
}

/** Linux takes no argument of 128 KiB or more. */
const MAX_JSON_BYTES = 120_000;

/**
 * An event as FastFreeze's metrics recorders know it: durations in seconds, sizes in MiB, names in snake case
 * (docs/metrics.md). Short enough for one argument of a program.
 */
export function eventToJson(event: JobEvent, context: EventContext): string {
  const full = fields(event, context);
  const text = JSON.stringify(full);
  if (Buffer.byteLength(text) <= MAX_JSON_BYTES) return text;
  // Only a command line can be so long, or the list of a very large image's objects.
  const stats = full['stats'] as Record<string, unknown> | undefined;
  return JSON.stringify({
    ...full,
    cli_args: [],
    ...(stats === undefined ? {} : { stats: { ...stats, shards: [] } }),
    truncated: true,
  });
}

/** The event of a checkpoint that is durable. */
export function checkpointEvent(result: {
  readonly generation: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly frozenMs: number;
  readonly durableMs: number;
  readonly shards: readonly ShardTransfer[];
}): JobEvent {
  const { generation, rawBytes, storedBytes, frozenMs, durableMs, shards } = result;
  const transfer = { rawBytes, storedBytes, durationMs: durableMs, shards };
  return { action: 'checkpoint', durationMs: durableMs, transfer, generation, frozenMs };
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** Six letters and digits that tell one invocation from another. */
export function newInvocationId(): string {
  return Array.from({ length: 6 }, () => ALPHABET[randomInt(ALPHABET.length)]).join('');
}

function fields(event: JobEvent, context: EventContext): Record<string, unknown> {
  const common = {
    invocation_id: context.invocationId,
    elapsed_time: seconds(context.elapsedMs),
    cli_args: context.cliArgs,
  };
  if (event.action === 'checkpoint_start') return { ...common, action: event.action, image_url: event.imageUrl };
  return {
    ...common,
    action: event.action,
    duration: seconds(event.durationMs),
    outcome: event.error === undefined ? 'success' : 'error',
    ...(event.error === undefined ? {} : { error: event.error }),
    ...extra(event),
  };
}

function extra(event: Exclude<JobEvent, { action: 'checkpoint_start' }>): Record<string, unknown> {
  switch (event.action) {
    case 'fetch_manifest':
      return { manifest: event.manifest, run_mode: event.runMode };
    case 'run_from_scratch':
      return {};
    case 'restore':
      return {
        stats: event.transfer === undefined ? undefined : stats(event.transfer),
        duration_since_checkpoint_sec:
          event.sinceCheckpointMs === undefined ? undefined : Math.max(0, seconds(event.sinceCheckpointMs)),
      };
    case 'checkpoint':
      return {
        stats: event.transfer === undefined ? undefined : stats(event.transfer),
        generation: event.generation,
        frozen_sec: event.frozenMs === undefined ? undefined : seconds(event.frozenMs),
      };
    case 'run':
      return { exit_code: event.exitCode };
  }
}

function stats(transfer: Transfer): Record<string, unknown> {
  return {
    total_size_mb: mib(transfer.rawBytes),
    stored_size_mb: mib(transfer.storedBytes),
    total_duration_sec: seconds(transfer.durationMs),
    rate_mb_per_sec: rate(transfer.rawBytes, transfer.durationMs),
    shards: transfer.shards.map((shard) => ({
      size_mb: mib(shard.sizeBytes),
      duration_sec: seconds(shard.durationMs),
      rate_mb_per_sec: rate(shard.sizeBytes, shard.durationMs),
    })),
  };
}

function seconds(ms: number): number {
  return Math.round(ms) / 1000;
}

function mib(bytes: number): number {
  return bytes / 1048576;
}

function rate(bytes: number, ms: number): number {
  return ms <= 0 ? 0 : mib(bytes) / (ms / 1000);
}
