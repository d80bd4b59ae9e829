// SPDX-License-Identifier: Apache-2.0
import { appendFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { startTicks } from '../../../src/action/deadline.js';
import { OUTPUT_FILE, tellEvent } from '../../../src/action/engine-task.js';
import { ShownOutput } from '../../../src/action/shown-output.js';
import { watchEngine } from '../../../src/action/watch.js';
import { makeDirectory, within } from '../linux/support.js';

const MIB = 1_048_576;
const never = (): boolean => false;

/** Bytes that tell where they stand. */
function counted(from: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 8) bytes.writeBigUInt64BE(BigInt(from + at), at);
  return bytes;
}

const diskBytes = (path: string): number => statSync(path).blocks * 512;

test('what was shown takes no disk any more, and whoever comes after a killed step begins where that was', async () => {
  const directory = makeDirectory();
  const path = join(directory, OUTPUT_FILE);
  writeFileSync(path, '');
  const output = ShownOutput.open(directory, 0);
  const pieces: Buffer[] = [];
  const keep = (piece: Buffer): Promise<void> => Promise.resolve(void pieces.push(Buffer.from(piece)));
  for (let round = 0; round < 8; round++) {
    appendFileSync(path, counted(round * MIB, MIB));
    expect(await output.show(keep, never)).toBe(0);
    expect(diskBytes(path)).toBeLessThan(MIB);
  }
  appendFileSync(path, counted(8 * MIB, MIB / 2));
  await output.show(keep, never);
  expect(Buffer.concat(pieces).equals(counted(0, 8.5 * MIB))).toBe(true);
  expect(output.shownBytes).toBe(8.5 * MIB);
  output.close();

  appendFileSync(path, counted(8.5 * MIB, 64));
  for (const [told, from] of [
    [0, 8 * MIB],
    [8.5 * MIB, 8.5 * MIB],
  ] as const) {
    const next = ShownOutput.open(directory, told);
    pieces.length = 0;
    await next.show(keep, never);
    next.close();
    expect(Buffer.concat(pieces).equals(counted(from, 8.5 * MIB + 64 - from))).toBe(true);
  }
});

test('nobody is kept by output without an end, or by a reader that does not read', async () => {
  const directory = makeDirectory();
  const path = join(directory, OUTPUT_FILE);
  writeFileSync(path, counted(0, 64));
  const engine = { pid: process.pid, ticks: startTicks(process.pid) ?? -1, directory };
  const untilMs = Date.now() + 300;
  const stuck = { untilMs, show: () => new Promise<void>(() => undefined) };
  expect(await within('the end', watchEngine(engine, stuck), 5_000)).toMatchObject({
    result: undefined,
    shownBytes: 0,
    hiddenBytes: 64,
  });
  // As of `yes`: each piece that is shown is followed by two.
  const endless = (piece: Buffer): Promise<void> => {
    appendFileSync(path, piece);
    appendFileSync(path, piece);
    return Promise.resolve();
  };
  const told = new AbortController();
  setTimeout(() => told.abort(), 300);
  const cut = await within('the end', watchEngine(engine, { signal: told.signal, show: endless }), 5_000);
  expect(cut.result).toBeUndefined();
  expect(cut.hiddenBytes).toBeGreaterThan(0);
  // What the engine tells is heard meanwhile.
  setTimeout(() => tellEvent(directory, { type: 'ended', exitCode: 0, how: 'ended' }), 300);
  const ended = await within('the end', watchEngine(engine, { show: endless }), 10_000);
  expect(ended.result).toMatchObject({ how: 'ended' });
});
