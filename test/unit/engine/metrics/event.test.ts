// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { type JobEvent, checkpointEvent, eventToJson, newInvocationId } from '../../../../src/engine/metrics/event.js';

const CONTEXT = { invocationId: 'aB3dE6', cliArgs: ['fastfreeze', 'run', '--', 'a b'], elapsedMs: 1234.4 };
const COMMON = { invocation_id: 'aB3dE6', elapsed_time: 1.234, cli_args: ['fastfreeze', 'run', '--', 'a b'] };
const MIB = 1048576;

function json(event: JobEvent, context = CONTEXT): unknown {
  return JSON.parse(eventToJson(event, context));
}

describe('an event as JSON', () => {
  test('of each action has the names and units of FastFreeze', () => {
    expect(json({ action: 'fetch_manifest', durationMs: 250, manifest: 'good', runMode: 'restore' })).toEqual({
      ...COMMON,
      action: 'fetch_manifest',
      duration: 0.25,
      outcome: 'success',
      manifest: 'good',
      run_mode: 'restore',
    });
    expect(json({ action: 'run_from_scratch', durationMs: 0, error: 'why' })).toEqual({
      ...COMMON,
      action: 'run_from_scratch',
      duration: 0,
      outcome: 'error',
      error: 'why',
    });
    expect(json({ action: 'checkpoint_start', imageUrl: 'file:/x' })).toEqual({
      ...COMMON,
      action: 'checkpoint_start',
      image_url: 'file:/x',
    });
    expect(json({ action: 'run', durationMs: 9000, exitCode: 137 })).toEqual({
      ...COMMON,
      action: 'run',
      duration: 9,
      outcome: 'success',
      exit_code: 137,
    });
  });

  test('of a checkpoint tells sizes in MiB and rates, whole and by shard', () => {
    const event = checkpointEvent({
      generation: 3,
      rawBytes: 8 * MIB,
      storedBytes: 3 * MIB,
      frozenMs: 500,
      durableMs: 2000,
      shards: [
        { sizeBytes: 2 * MIB, durationMs: 1000 },
        { sizeBytes: MIB, durationMs: 0 },
      ],
    });
    expect(json(event)).toEqual({
      ...COMMON,
      action: 'checkpoint',
      duration: 2,
      outcome: 'success',
      generation: 3,
      frozen_sec: 0.5,
      stats: {
        total_size_mb: 8,
        stored_size_mb: 3,
        total_duration_sec: 2,
        rate_mb_per_sec: 4,
        shards: [
          { size_mb: 2, duration_sec: 1, rate_mb_per_sec: 2 },
          { size_mb: 1, duration_sec: 0, rate_mb_per_sec: 0 },
        ],
      },
    });
  });

  test('of a restore never says that the checkpoint is of the future', () => {
    const transfer = { rawBytes: 0, storedBytes: 0, durationMs: 0, shards: [] };
    expect(json({ action: 'restore', durationMs: 1, transfer, sinceCheckpointMs: -5000 })).toMatchObject({
      duration_since_checkpoint_sec: 0,
      stats: { total_size_mb: 0, rate_mb_per_sec: 0, shards: [] },
    });
  });

  test('stays short enough for an argument of a program', () => {
    const shards = Array.from({ length: 5000 }, () => ({ sizeBytes: 1, durationMs: 1 }));
    const event = checkpointEvent({ generation: 1, rawBytes: MIB, storedBytes: 1, frozenMs: 1, durableMs: 1, shards });
    for (const context of [CONTEXT, { ...CONTEXT, cliArgs: ['ä'.repeat(100_000)] }]) {
      const text = eventToJson(event, context);
      expect(Buffer.byteLength(text)).toBeLessThan(128 * 1024);
      expect(JSON.parse(text)).toMatchObject({ truncated: true, stats: { total_size_mb: 1, shards: [] } });
    }
  });

  test('has an id of six letters and digits', () => {
    const ids = Array.from({ length: 50 }, newInvocationId);
    for (const id of ids) expect(id).toMatch(/^[A-Za-z0-9]{6}$/);
    expect(new Set(ids).size).toBeGreaterThan(45);
  });
});
