// SPDX-License-Identifier: Apache-2.0
import { isatty } from 'node:tty';
import { writeSync } from 'node:fs';
import type { Progress } from './config.js';

export interface ProgressLine {
  readonly show: (progress: Progress) => void;
  readonly clear: () => void;
}

/** Shorter work needs no picture. */
const QUIET_MS = 1_000;

/** One line that is drawn over itself, on a terminal only. */
export function createProgressLine(fd = 2): ProgressLine {
  if (!isatty(fd)) return { show: () => undefined, clear: () => undefined };
  let drawn = false;
  return {
    show(progress) {
      if (progress.elapsedMs < QUIET_MS) return;
      drawn = true;
      draw(fd, `\r\x1b[K${describeProgress(progress)}`);
    },
    clear() {
      if (drawn) draw(fd, '\r\x1b[K');
      drawn = false;
    },
  };
}

/** `dump 1.2 of about 4.0 GiB, 812 MiB/s, ratio 2.1, about 3 s left`. */
export function describeProgress(progress: Progress): string {
  const seconds = progress.elapsedMs / 1000;
  const rate = seconds > 0 ? progress.doneBytes / seconds : 0;
  const total = progress.totalBytes > 0 ? ` of about ${gib(progress.totalBytes)}` : '';
  const parts = [`${progress.phase} ${gib(progress.doneBytes)}${total} GiB`, `${(rate / 1048576).toFixed(0)} MiB/s`];
  if (progress.storedBytes > 0) parts.push(`ratio ${(progress.doneBytes / progress.storedBytes).toFixed(1)}`);
  const left = progress.totalBytes - progress.doneBytes;
  if (left > 0 && rate > 0) parts.push(`about ${Math.ceil(left / rate)} s left`);
  return parts.join(', ');
}

function gib(bytes: number): string {
  return (bytes / 1073741824).toFixed(1);
}

function draw(fd: number, text: string): void {
  try {
    writeSync(fd, text);
  } catch {
    return; // A terminal that takes nothing now gets the next picture.
  }
}
