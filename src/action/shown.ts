// SPDX-License-Identifier: Apache-2.0
import { writeOut } from './watch.js';

export interface OutputWriter {
  readonly write: (piece: Buffer) => Promise<void>;
  /** Ends a line that the command has begun: the runner knows a `::` command only at the start of one. */
  readonly endLine: () => Promise<void>;
}

const LINE_FEED = 0x0a;

/** What the engine and the command write, to our standard output. */
export function outputWriter(put: (piece: Buffer) => Promise<void> = writeOut): OutputWriter {
  let isAtStart = true;
  return {
    write: async (piece) => {
      await put(piece);
      isAtStart = piece.at(-1) === LINE_FEED;
    },
    endLine: async () => {
      if (!isAtStart) await put(Buffer.of(LINE_FEED));
      isAtStart = true;
    },
  };
}
