// SPDX-License-Identifier: Apache-2.0
import { savedRanges } from './memory.js';
import type { Message } from './protobuf.js';

/** Some bytes of one of the image's files. */
export type ReadRange = (name: string, offset: number, length: number) => Promise<Buffer>;

/** Of longer ones the rest is left out. */
export const MAX_COMMAND_LINE_BYTES = 16 << 10;

/**
 * The arguments of a process, out of its memory as /proc/PID/cmdline would show them. Undefined where the image does not
 * hold those pages.
 */
export async function readCommandLine(
  mm: Message,
  pagemap: readonly Message[],
  read: ReadRange,
): Promise<string[] | undefined> {
  const [start, end, environmentEnd] = [mm.big(8) ?? 0n, mm.big(9) ?? 0n, mm.big(11) ?? 0n];
  if (start === 0n || end < start) return undefined;
  const most = start + BigInt(MAX_COMMAND_LINE_BYTES);
  const bytes = await readMemoryAt(pagemap, start, smaller(end, most), read);
  if (bytes === undefined) return undefined;
  const whole = end <= most;
  if (!whole || bytes.length === 0 || bytes.at(-1) === 0) return split(bytes);
  // A process that names itself (setproctitle) writes one text over its arguments, and on into its environment.
  const more = await readMemoryAt(pagemap, end, smaller(environmentEnd, most), read);
  const text = Buffer.concat([bytes, more ?? Buffer.alloc(0)]);
  const nul = text.indexOf(0);
  return [text.toString('utf8', 0, nul === -1 ? text.length : nul).trimEnd()];
}

function split(bytes: Buffer): string[] {
  if (bytes.length === 0) return [];
  return bytes.toString('utf8', 0, bytes.at(-1) === 0 ? bytes.length - 1 : bytes.length).split('\0');
}

/** Memory from one address to another, if all of it is saved: pages lie in their file in the order of the page map. */
async function readMemoryAt(
  pagemap: readonly Message[],
  from: bigint,
  to: bigint,
  read: ReadRange,
): Promise<Buffer | undefined> {
  const pagesId = pagemap[0]?.count(1);
  if (pagesId === undefined) return undefined;
  const pieces: Buffer[] = [];
  let at = from;
  let offset = 0n;
  for (const { start, end } of savedRanges(pagemap)) {
    if (at >= start && at < end && at < to) {
      const stop = smaller(end, to);
      pieces.push(await read(`pages-${pagesId}.img`, Number(offset + at - start), Number(stop - at)));
      at = stop;
    }
    offset += end - start;
  }
  return at < to ? undefined : Buffer.concat(pieces);
}

function smaller(one: bigint, other: bigint): bigint {
  return one < other ? one : other;
}
