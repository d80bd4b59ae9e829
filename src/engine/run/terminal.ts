// SPDX-License-Identifier: Apache-2.0
import { isatty } from 'node:tty';
import { toErrorRecord } from '../../base/errors.js';
import type { Logger } from '../../base/log.js';
import {
  isBackgroundTerminal,
  isForegroundTerminal,
  rawSettings,
  rawSettingsWithInterrupt,
  readTerminalSettings,
  readWindowSize,
  writeTerminalSettings,
} from '../../linux/terminal.js';
import type { SupervisorConfig } from '../config.js';

export interface OuterTerminal {
  readonly outer: SupervisorConfig['outer'];
  /** The application runs: from now on every key is its own. */
  handOver(): void;
  /** Put the terminal back as it was found. */
  restore(): void;
}

export function openTerminal(log: Logger): OuterTerminal {
  const usable = isatty(0) && isForegroundTerminal(0);
  if (!usable) {
    const outer = { terminal: [false, false, false], background: isBackgroundTerminal(0) } as const;
    return { outer, handOver: () => undefined, restore: () => undefined };
  }
  const settings = readTerminalSettings(0);
  const windowSize = readWindowSize(0);
  // Until there is an application to get Ctrl-C, it ends the run: nobody reads the terminal yet, so the kernel makes a signal
  // of it. Not of the other keys: Ctrl-Z would stop us alone, and what is typed ahead is for the application.
  writeTerminalSettings(0, rawSettingsWithInterrupt(settings));
  let restored = false;
  const write = (wanted: Buffer): void => {
    try {
      writeTerminalSettings(0, wanted);
    } catch (error) {
      // The terminal has gone (a closed window): there is nothing to put back.
      log.debug(toErrorRecord(error).message);
    }
  };
  const handOver = (): void => {
    // It may have been given to another job meanwhile, and whoever changes its settings then is stopped.
    if (!restored && isForegroundTerminal(0)) write(rawSettings(settings));
  };
  const restore = (): void => {
    if (restored) return;
    restored = true;
    write(settings);
  };
  process.once('exit', restore);
  return {
    outer: {
      terminal: [true, isatty(1), isatty(2)],
      background: false,
      settings: settings.toString('base64'),
      windowSize: windowSize.toString('base64'),
    },
    handOver,
    restore,
  };
}
