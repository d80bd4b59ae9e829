// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { checkpointEvent } from '../../../../src/engine/metrics/event.js';
import { createMetrics } from '../../../../src/engine/metrics/metrics.js';
import { count, newTotals, replaceFile, toOpenMetrics } from '../../../../src/engine/metrics/openmetrics.js';
import { makeDirectory } from '../../linux/support.js';

const LINE =
  /^(# (TYPE fastfreeze_\w+ (counter|gauge)|UNIT fastfreeze_\w+ (seconds|bytes)|HELP fastfreeze_\w+ .+\.)|fastfreeze_\w+\{name="(\\.|[^"\\])*"(,outcome="(success|error)")?\} [\d.e+-]+)$/;

/** Samples by name and outcome; throws at a line that is no OpenMetrics, or a sample without its TYPE before it. */
function samples(text: string): Record<string, number> {
  const lines = text.split('\n');
  expect(lines.slice(-2)).toEqual(['# EOF', '']);
  let family = '';
  const found: Record<string, number> = {};
  for (const line of lines.slice(0, -2)) {
    if (!LINE.test(line)) throw new Error(`not OpenMetrics: ${line}`);
    const type = /^# TYPE (\w+)/.exec(line)?.[1];
    if (type !== undefined) family = type;
    if (line.startsWith('#')) continue;
    const name = /^\w+/.exec(line)?.[0] ?? '';
    if (name !== family && name !== `${family}_total`) throw new Error(`${name} is not of ${family}`);
    const outcome = /outcome="(\w+)"/.exec(line)?.[1];
    found[outcome === undefined ? name : `${name} ${outcome}`] = Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  return found;
}

const CHECKPOINT = { generation: 2, rawBytes: 1000, storedBytes: 400, frozenMs: 30, durableMs: 250, shards: [] };

describe('a job as OpenMetrics text', () => {
  test('begins without what is not known, and counts what happens', () => {
    const totals = newTotals('solve', 1_700_000_000_500);
    expect(samples(toOpenMetrics(totals))).toEqual({
      fastfreeze_job_running: 1,
      fastfreeze_job_start_timestamp_seconds: 1_700_000_000.5,
      'fastfreeze_checkpoints_total success': 0,
      'fastfreeze_checkpoints_total error': 0,
      'fastfreeze_restores_total success': 0,
      'fastfreeze_restores_total error': 0,
    });
    const transfer = { rawBytes: 5, storedBytes: 3, durationMs: 1, shards: [] };
    count(totals, { action: 'restore', durationMs: 1500, transfer }, 0);
    count(totals, checkpointEvent(CHECKPOINT), 1_700_000_010_000);
    count(totals, { action: 'checkpoint', durationMs: 1, error: 'full' }, 1_700_000_020_000);
    count(totals, { action: 'run', durationMs: 1, exitCode: 3, error: 'x' }, 0);
    expect(samples(toOpenMetrics(totals))).toEqual({
      fastfreeze_job_running: 0,
      fastfreeze_job_start_timestamp_seconds: 1_700_000_000.5,
      fastfreeze_job_exit_code: 3,
      'fastfreeze_checkpoints_total success': 1,
      'fastfreeze_checkpoints_total error': 1,
      'fastfreeze_restores_total success': 1,
      'fastfreeze_restores_total error': 0,
      fastfreeze_checkpoint_timestamp_seconds: 1_700_000_010,
      fastfreeze_checkpoint_generation: 2,
      fastfreeze_checkpoint_frozen_seconds: 0.03,
      fastfreeze_checkpoint_durable_seconds: 0.25,
      fastfreeze_checkpoint_raw_bytes: 1000,
      fastfreeze_checkpoint_stored_bytes: 400,
      fastfreeze_restore_duration_seconds: 1.5,
      fastfreeze_restore_raw_bytes: 5,
    });
  });

  test('keeps any name of a job in its quotes', () => {
    const text = toOpenMetrics(newTotals('a"b\\c\nd', 0));
    samples(text);
    expect(text).toContain('{name="a\\"b\\\\c\\nd"}');
  });

  test('replaces its file in one step and leaves no other', () => {
    const directory = makeDirectory();
    const path = join(directory, 'job.prom');
    writeFileSync(path, 'old');
    replaceFile(path, 'new\n');
    expect(readFileSync(path, 'utf8')).toBe('new\n');
    expect(() => replaceFile(join(directory, 'none', 'x'), '')).toThrow(/ENOENT/);
    mkdirSync(join(directory, 'taken'));
    expect(() => replaceFile(join(directory, 'taken'), '')).toThrow(/EISDIR/);
    expect(readdirSync(directory).sort()).toEqual(['job.prom', 'taken']);
  });

  test('that cannot be written is refused at the start, and later only told of, once', () => {
    const directory = makeDirectory();
    const warnings: string[] = [];
    const options = {
      recorder: undefined,
      jobName: 'j',
      cliArgs: [],
      startedAtMs: 0,
      warn: (text: string) => void warnings.push(text),
    };
    expect(() => createMetrics({ ...options, filePath: join(directory, 'none', 'x') })).toThrow(
      /cannot write the metrics file .*none\/x: it does not exist/,
    );
    mkdirSync(join(directory, 'taken'));
    expect(() => createMetrics({ ...options, filePath: join(directory, 'taken') })).toThrow(
      /cannot write the metrics file/,
    );
    const inner = join(directory, 'inner');
    mkdirSync(inner);
    const filePath = join(inner, 'x');
    const ended = { action: 'run', durationMs: 1, exitCode: 0 } as const;
    writeFileSync(filePath, 'of another run');
    const metrics = createMetrics({ ...options, filePath });
    metrics.emit(ended);
    // Until the job is ours the file is not.
    expect(readFileSync(filePath, 'utf8')).toBe('of another run');
    metrics.begin();
    expect(samples(readFileSync(filePath, 'utf8'))['fastfreeze_job_running']).toBe(0);
    expect(readdirSync(inner)).toEqual(['x']);
    rmSync(inner, { recursive: true });
    metrics.emit(ended);
    metrics.emit(ended);
    expect(warnings).toHaveLength(1);
    mkdirSync(inner);
    metrics.emit(ended);
    expect(readdirSync(inner)).toEqual(['x']);
    expect(warnings).toHaveLength(1);
  });
});
