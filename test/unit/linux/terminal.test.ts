// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { constants, openSync } from 'node:fs';
import { closeFd, setNonblocking, tryRead, tryWrite } from '../../../src/linux/fds.js';
import {
  interruptByte,
  isBackgroundTerminal,
  isForegroundTerminal,
  openPseudoTerminal,
  rawSettings,
  rawSettingsWithInterrupt,
  readTerminalSettings,
  readWindowSize,
  writeTerminalSettings,
  writeWindowSize,
} from '../../../src/linux/terminal.js';
import { runCommand } from './support.js';
import { until } from '../../support/until.js';

jest.setTimeout(30_000);

let masterFd = -1;
let slaveFd = -1;
let path = '';

beforeEach(() => {
  ({ masterFd, path } = openPseudoTerminal());
  slaveFd = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
  setNonblocking(masterFd);
});
afterEach(() => {
  closeFd(slaveFd);
  closeFd(masterFd);
});

const stty = async (...words: string[]): Promise<string> => {
  const outcome = await runCommand(['stty', '-F', path, ...words]);
  expect(outcome.code).toBe(0);
  return outcome.stdout.trim();
};

/** What the terminal shows back. */
const shown = async (): Promise<string> => {
  const bytes = Buffer.alloc(100);
  const got = await until('output', () => {
    const length = tryRead(masterFd, bytes, 100);
    return typeof length === 'number' ? length : false;
  });
  return bytes.toString('latin1', 0, got);
};

describe('terminal settings', () => {
  test('are made raw and put back exactly, as stty sees them', async () => {
    const before = await stty('-g');
    const settings = readTerminalSettings(slaveFd);
    expect(interruptByte(settings)).toBe(3);
    const untouched = Buffer.from(settings);

    writeTerminalSettings(slaveFd, rawSettings(settings));
    expect(settings.equals(untouched)).toBe(true);
    const raw = await stty('-a');
    for (const off of ['-icanon', '-isig', '-echo', '-opost', '-ixon', '-icrnl']) expect(raw).toContain(off);
    // A byte that would raise SIGINT passes, and nothing is echoed.
    tryWrite(masterFd, Buffer.from([3]), 1);
    const byte = Buffer.alloc(8);
    setNonblocking(slaveFd);
    await until('the byte', () => tryRead(slaveFd, byte, 8) === 1 && byte[0] === 3);

    writeTerminalSettings(slaveFd, settings);
    expect(await stty('-g')).toBe(before);
    tryWrite(masterFd, Buffer.from('hi\n'), 3);
    expect(await shown()).toBe('hi\r\n');
  });

  test('are made raw but for the interrupt key, where there is one', async () => {
    await stty('intr', '^X');
    const settings = readTerminalSettings(slaveFd);
    writeTerminalSettings(slaveFd, rawSettings(settings));
    const raw = await stty('-a');
    writeTerminalSettings(slaveFd, rawSettingsWithInterrupt(settings));
    const words = (text: string): string => text.replace(/\s+/g, ' ');
    const wanted = words(raw)
      .replace('-isig', 'isig')
      .replace(/quit = [^;]+/, 'quit = <undef>')
      .replace(/susp = [^;]+/, 'susp = <undef>');
    expect(wanted).not.toBe(words(raw));
    expect(words(await stty('-a'))).toBe(wanted);
    writeTerminalSettings(slaveFd, settings);
    await stty('-isig');
    writeTerminalSettings(slaveFd, rawSettingsWithInterrupt(readTerminalSettings(slaveFd)));
    expect(await stty('-a')).toContain('-isig');
  });

  test('tell another interrupt key, and none', async () => {
    await stty('intr', '^X');
    expect(interruptByte(readTerminalSettings(slaveFd))).toBe(0x18);
    await stty('intr', 'undef');
    expect(interruptByte(readTerminalSettings(slaveFd))).toBe(0);
  });

  test('carry the window size', async () => {
    await stty('rows', '33', 'cols', '77');
    const size = readWindowSize(slaveFd);
    await stty('rows', '1', 'cols', '1');
    writeWindowSize(masterFd, size);
    expect(await stty('size')).toBe('33 77');
  });

  test('of something else are refused with the call that failed', () => {
    const file = openSync('/dev/null', 'r');
    expect(() => readTerminalSettings(file)).toThrow(/tcgetattr: ENOTTY/);
    expect(() => readWindowSize(file)).toThrow(/TIOCGWINSZ: ENOTTY/);
    expect(isForegroundTerminal(file)).toBe(false);
    // Nor is a terminal ours that does not control us.
    expect(isForegroundTerminal(slaveFd)).toBe(false);
    expect([file, slaveFd].map(isBackgroundTerminal)).toEqual([false, false]);
    closeFd(file);
  });
});
