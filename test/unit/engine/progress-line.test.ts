// SPDX-License-Identifier: Apache-2.0
import { describe, expect, jest, test } from '@jest/globals';
import { closeSync, constants, openSync } from 'node:fs';
import { createProgressLine, describeProgress } from '../../../src/engine/progress-line.js';
import { closeFd, makePipe, readableBytes, setNonblocking, tryRead } from '../../../src/linux/fds.js';
import { openPseudoTerminal } from '../../../src/linux/terminal.js';
import { until } from '../../support/until.js';

jest.setTimeout(20_000);

const GIB = 2 ** 30;
const progress = {
  phase: 'dump',
  doneBytes: 1.5 * GIB,
  storedBytes: GIB,
  totalBytes: 4 * GIB,
  elapsedMs: 3_000,
} as const;

describe('progress', () => {
  test('is told with amount, rate, ratio and time left', () => {
    expect(describeProgress(progress)).toBe('dump 1.5 of about 4.0 GiB, 512 MiB/s, ratio 1.5, about 5 s left');
  });

  test('leaves out what is not known', () => {
    expect(describeProgress({ ...progress, storedBytes: 0, totalBytes: 0, phase: 'restore' })).toBe(
      'restore 1.5 GiB, 512 MiB/s',
    );
    expect(describeProgress({ ...progress, doneBytes: 0, storedBytes: 0, elapsedMs: 0 })).toBe(
      'dump 0.0 of about 4.0 GiB, 0 MiB/s',
    );
    // The estimate was too low.
    expect(describeProgress({ ...progress, doneBytes: 5 * GIB })).not.toMatch(/left|NaN|Infinity/);
  });

  test('is drawn on a terminal, over itself, after a second, and wiped', async () => {
    const { masterFd, path } = openPseudoTerminal();
    const terminal = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
    setNonblocking(masterFd);
    let shown = '';
    const look = (): string => {
      const bytes = Buffer.alloc(4096);
      const got = tryRead(masterFd, bytes, bytes.length);
      if (typeof got === 'number') shown += bytes.toString('latin1', 0, got);
      return shown;
    };
    const line = createProgressLine(terminal);
    line.clear();
    line.show({ ...progress, elapsedMs: 999 });
    expect(look()).toBe('');
    line.show(progress);
    line.show(progress);
    line.clear();
    const picture = `\r\x1b[K${describeProgress(progress)}`;
    await until('the pictures', () => look() === `${picture}${picture}\r\x1b[K`);
    line.clear();
    expect(look()).toBe(`${picture}${picture}\r\x1b[K`);
    closeSync(terminal);
    // A terminal that has gone is no reason to fail.
    closeFd(masterFd);
  });

  test('is not drawn elsewhere', () => {
    const pipe = makePipe();
    const line = createProgressLine(pipe.writeFd);
    line.show(progress);
    line.clear();
    expect(readableBytes(pipe.readFd)).toBe(0);
    closeFd(pipe.readFd);
    closeFd(pipe.writeFd);
  });
});
