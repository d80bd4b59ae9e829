// SPDX-License-Identifier: Apache-2.0
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { nextData, punchHole } from '../linux/file-data.js';
import { OUTPUT_FILE } from './engine-task.js';

const PIECE_BYTES = 65_536;
/** Disk that was shown is given back in such pieces, which are whole blocks everywhere. */
const FREED_BYTES = 1_048_576;
const LOOK_MS = 100;

export type Show = (piece: Buffer) => Promise<void>;

/**
 * What the engine and the command write, in a file: nobody who reads it can hold them up. So it grows for as long as they write; what was
 * shown is freed, and what is left takes no more than the reader of our own output is behind.
 */
export class ShownOutput {
  private freed: number;
  private canFree = true;

  private constructor(
    private readonly fd: number,
    private position: number,
  ) {
    this.freed = position - (position % FREED_BYTES);
  }

  /** From `shownBytes` on, or later: a step that was killed could not say how far it came, but what is freed was shown. */
  static open(directory: string, shownBytes: number): ShownOutput {
    const fd = openSync(join(directory, OUTPUT_FILE), 'r+');
    // Its end first: what is written between the two looks is still to be shown.
    const { size } = fstatSync(fd);
    return new ShownOutput(fd, nextData(fd, shownBytes)?.from ?? Math.max(shownBytes, size));
  }

  /** How much is shown, in bytes from the start. */
  get shownBytes(): number {
    return this.position;
  }

  /**
   * Show what is there by now, until `isOver`: whoever writes without end, or does not read, must not keep us. Resolves to how much of that is
   * not shown, in bytes.
   */
  async show(show: Show, isOver: () => boolean): Promise<number> {
    const endBytes = fstatSync(this.fd).size;
    while (this.position < endBytes && !isOver()) {
      const piece = Buffer.alloc(Math.min(PIECE_BYTES, endBytes - this.position));
      const length = readSync(this.fd, piece, 0, piece.length, this.position);
      // Half shown is not shown: shown twice is better than not at all.
      if (length === 0 || !(await endsBefore(show(piece.subarray(0, length)), isOver))) break;
      this.position += length;
      this.free();
      // What can be written at once never waits: a signal would not get its turn.
      await nextTurn();
    }
    return Math.max(0, endBytes - this.position);
  }

  close(): void {
    closeSync(this.fd);
  }

  private free(): void {
    const upTo = this.position - (this.position % FREED_BYTES);
    if (!this.canFree || upTo <= this.freed) return;
    try {
      punchHole(this.fd, this.freed, upTo - this.freed);
      this.freed = upTo;
    } catch {
      // Not every file system can (NFS before 4.2). Then it takes what it takes, until the step removes it.
      this.canFree = false;
    }
  }
}

/** Whether the work has ended; false as soon as it is over without. A failure of the work is thrown. */
async function endsBefore(work: Promise<void>, isOver: () => boolean): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<false>((resolve) => {
    timer = setInterval(() => {
      if (isOver()) resolve(false);
    }, LOOK_MS);
  });
  try {
    return await Promise.race([work.then(() => true), over]);
  } finally {
    clearInterval(timer);
  }
}
