// SPDX-License-Identifier: Apache-2.0
import { isatty } from 'node:tty';
import { toErrorRecord } from '../../base/errors.js';
import type { Logger } from '../../base/log.js';
import {
  isBackgroundTerminal,
  isForegroundTerminal,
  rawSettings,
  readTerminalSettings,
  readWindowSize,
  writeTerminalSettings,
} from '../../linux/terminal.js';
import type { SupervisorConfig } from '../config.js';

export interface OuterTerminal {
  readonly outer: SupervisorConfig['outer'];
  /** Put the terminal back as it was found. */
  restore(): void;
}

export function openTerminal(log: Logger): OuterTerminal {
  const usable = isatty(0) && isForegroundTerminal(0);
  if (!usable) {
    const outer = { terminal: [false, false, false], background: isBackgroundTerminal(0) } as const;
    return { outer, restore: () => undefined };
  }
  const settings = readTerminalSettings(0);
  const windowSize = readWindowSize(0);
  writeTerminalSettings(0, rawSettings(settings));
  let restored = false;
  const restore = (): void => {
    if (restored) return;
    restored = true;
    try {
      writeTerminalSettings(0, settings);
    } catch (error) {
      // The terminal has gone (a closed window): there is nothing to put back.
      log.debug(toErrorRecord(error).message);
    }
  };
  process.once('exit', restore);
  return {
    outer: {
      terminal: [true, isatty(1), isatty(2)],
      background: false,
      settings: settings.toString('base64'),
      windowSize: windowSize.toString('base64'),
    },
    restore,
  };
}
