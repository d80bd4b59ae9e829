// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { chmodSync, closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type LaunchOptions, containerFailure, launch } from '../../../src/container/launch.js';
import { type Clocks, readClockOffsets, readClocks } from '../../../src/linux/clocks.js';
import { makeDirectory, moduleUrl, scriptCommand, within } from '../linux/support.js';

jest.setTimeout(30_000);

const SECOND = 1_000_000_000n;
const lockFd = openSync('/dev/null', 'r');
const path = process.env['PATH'];
afterEach(() => {
  process.env['PATH'] = path;
});

/** What `unshare` is called with. */
async function argumentsFor(
  clocks: Clocks | undefined,
  privileged: boolean,
  more: Partial<LaunchOptions> = {},
): Promise<string[]> {
  const directory = makeDirectory();
  const out = join(directory, 'arguments');
  writeFileSync(join(directory, 'unshare'), `#!/bin/sh\nprintf '%s\\n' "$@" > ${out}\n`);
  chmodSync(join(directory, 'unshare'), 0o755);
  process.env['PATH'] = `${directory}:${path ?? ''}`;
  const launched = launch({ command: ['program', 'word'], container: true, privileged, clocks, lockFd, ...more });
  expect(await within('unshare', launched.exited)).toBe(0);
  launched.channel.destroy();
  return readFileSync(out, 'utf8').trim().split('\n');
}

const valueOf = (words: readonly string[], name: string): bigint =>
  BigInt(words.find((word) => word.startsWith(`${name}=`))?.slice(name.length + 1) ?? 'missing');

describe('the container', () => {
  let before: Clocks;
  beforeEach(() => {
    before = readClocks();
  });

  test('of root keeps the user and leaves the clocks to CRIU', async () => {
    expect(await argumentsFor({ monotonicNs: 5n, boottimeNs: 5n }, true)).toEqual(
      '--pid --fork --mount --mount-proc --kill-child -- program word'.split(' '),
    );
  });

  test('of a normal user is a user namespace, with a time namespace that continues nothing yet', async () => {
    expect(await argumentsFor(undefined, false)).toEqual(
      '--user --map-root-user --pid --fork --mount --mount-proc --kill-child --ipc --time -- program word'.split(' '),
    );
  });

  test('of a normal user with ids of its own maps these instead', async () => {
    expect(await argumentsFor(undefined, false, { idMapping: ['--user', '--map-user=7'] })).toEqual(
      '--user --map-user=7 --pid --fork --mount --mount-proc --kill-child --ipc --time -- program word'.split(' '),
    );
  });

  test.each([
    ['far ahead', 987_654_321_987_654_321n],
    ['a nanosecond ahead of a whole second', 5000n * SECOND + 1n],
    ['a nanosecond before one', 5000n * SECOND - 1n],
    ['behind, on a machine that has run for longer', -1_500_000_000n],
    ['a nanosecond behind', -1n],
  ])('whose image is %s continues both clocks: never back, less than a second ahead', async (_, ahead) => {
    const image = { monotonicNs: before.monotonicNs + ahead, boottimeNs: before.boottimeNs + ahead - 3n };
    const words = await argumentsFor(image, false);
    const after = readClocks();
    const own = readClockOffsets();
    for (const [option, clock] of [
      ['--monotonic', 'monotonicNs'],
      ['--boottime', 'boottimeNs'],
    ] as const) {
      // The kernel adds the offset to the machine's own clock, which is ours without our offset.
      const earliest = valueOf(words, option) * SECOND + before[clock] - own[clock];
      const latest = valueOf(words, option) * SECOND + after[clock] - own[clock];
      expect(latest).toBeGreaterThanOrEqual(image[clock]);
      expect(earliest - image[clock]).toBeLessThan(SECOND);
    }
  });

  test('really shows the clocks of the image, as PID 1 of its namespace, and keeps the lock’s descriptor', async () => {
    const image = { monotonicNs: before.monotonicNs + 12_345n * SECOND + 678n, boottimeNs: before.boottimeNs + 99n };
    const script = `
      import { Socket } from 'node:net';
      import { fstatSync } from 'node:fs';
      import { readClocks } from '${moduleUrl('linux/clocks.js')}';
      const clocks = readClocks();
      new Socket({ fd: 3 }).end(JSON.stringify([process.pid, fstatSync(4).isCharacterDevice(), String(clocks.monotonicNs), String(clocks.boottimeNs)]) + '\\n');`;
    const launched = launch({
      command: scriptCommand(script),
      container: true,
      privileged: false,
      clocks: image,
      lockFd,
    });
    let text = '';
    launched.channel.setEncoding('utf8').on('data', (piece: string) => (text += piece));
    expect(await within('the container', launched.exited)).toBe(0);
    const elapsed = readClocks().monotonicNs - before.monotonicNs;
    const [pid, lock, monotonic, boottime] = JSON.parse(text) as [number, boolean, string, string];
    expect([pid, lock]).toEqual([1, true]);
    for (const [shown, wanted] of [
      [BigInt(monotonic), image.monotonicNs],
      [BigInt(boottime), image.boottimeNs],
    ] as const) {
      expect(shown).toBeGreaterThanOrEqual(wanted);
      expect(shown - wanted).toBeLessThan(elapsed + SECOND);
    }
    launched.channel.destroy();
  });

  test('is none where one is private already; death by a signal counts as 137', async () => {
    const launched = launch({
      command: ['sh', '-c', 'kill -KILL $$'],
      container: false,
      privileged: true,
      clocks: undefined,
      lockFd,
    });
    expect(await within('the end', launched.exited)).toBe(137);
    launched.channel.destroy();
  });

  test('that cannot be made is explained', async () => {
    process.env['PATH'] = makeDirectory();
    const launched = launch({ command: ['x'], container: true, privileged: true, clocks: undefined, lockFd });
    await expect(within('the failure', launched.exited)).rejects.toMatchObject({
      code: 'host',
      hint: expect.stringContaining('util-linux') as unknown,
    });
    expect(containerFailure(true)).toMatchObject({
      code: 'host',
      hint: expect.stringContaining('--privileged') as unknown,
    });
    closeSync(lockFd);
  });
});
