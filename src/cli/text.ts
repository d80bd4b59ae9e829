// SPDX-License-Identifier: Apache-2.0
import type { LeaseHolder } from '../image/lease-holder.js';

// How commands that show things write them for people. `--json` has its own, exact numbers.

/** `512 B`, `1.5 KiB`, `20.0 MiB`. */
export function sizeText(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes / 1024;
  let unit = 0;
  // Not at 1024: 1023.96 would be shown as 1024.0.
  while (value >= 1023.95 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** How long ago, by its largest unit: `5 s`, `3 min`, `2 h`, `4 d`. */
export function ageText(createdAt: string, nowMs = Date.now()): string {
  // Another machine's clock may be ahead of ours.
  const seconds = Math.max(0, Math.floor((nowMs - Date.parse(createdAt)) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** Who has the lease of a job. */
export function holderText({ host, pid }: LeaseHolder): string {
  return `host ${host}, PID ${pid}`;
}

export type Column = 'left' | 'right';

/** Rows of cells as aligned lines; `sides` says how each column is aligned. */
export function table(rows: readonly (readonly string[])[], sides: readonly Column[], indent = ''): string {
  const widths = sides.map((_, column) => Math.max(0, ...rows.map((row) => width(row[column] ?? ''))));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => {
        const room = ' '.repeat((widths[column] ?? 0) - width(cell));
        return sides[column] === 'right' ? room + cell : cell + room;
      })
      .join('  ')
      .trimEnd(),
  );
  return lines.map((line) => `${indent}${line}\n`).join('');
}

/** Names come from storage: nothing in them may steer a terminal or fake a line. */
export function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (char) => {
    const code = char.codePointAt(0) ?? 0;
    return `\\x${code.toString(16).padStart(2, '0')}`;
  });
}

function width(text: string): number {
  return Array.from(text).length;
}
