// SPDX-License-Identifier: Apache-2.0
import type { Piece } from '../image/pieces.js';
import { MAX_LENT_SEGMENTS, closeFd, readableBytes, tryLend, tryWrite } from '../linux/fds.js';
import { type Poller, POLLERR, POLLET, POLLOUT } from '../linux/poller.js';

/*
 * Memory pages are lent to the pipe instead of written into it. That saves a copy of the whole application, and, since
 * a pipe is locked while either side copies, lets CRIU copy nearly all of the time. A piece that was lent stays as it is
 * until CRIU has read past it.
 */

/** The write end of one of CRIU's pipes. */
export interface Outlet {
  /**
   * Put a piece behind those that wait for room in the pipe. Resolves to true when the next may come, false when CRIU
   * closed its end or we did. The piece becomes the outlet's, which releases it as soon as its memory is nobody's any more.
   */
  write(piece: Piece): Promise<boolean>;
  /** Resolves when CRIU has read all of it: a piece that comes next goes into the pipe whole. */
  emptied(): Promise<void>;
  /** Resolves when CRIU has read what was lent to the pipe: only then may it be closed. */
  drained(): Promise<void>;
  close(): void;
}

/** What the outlets of one restore share. */
export interface Loans {
  bytes: number;
  maxBytes: number;
  /** Page files that are being served. */
  outlets: number;
}

export function createLoans(): Loans {
  return { bytes: 0, maxBytes: MAX_LENT_BYTES, outlets: 0 };
}

/** More page files at once than memory in flight can serve well while each keeps some. */
export function isCrowd(loans: Loans): boolean {
  return loans.outlets > MAX_OUTLETS_AHEAD;
}

const MAX_OUTLETS_AHEAD = 3;

/** For less a copy is cheaper than the bookkeeping. */
const MIN_LENT_BYTES = 128 << 10;
/** All that may be lent at a time: files that CRIU reads later must not keep the memory that others need now. */
const MAX_LENT_BYTES = 4 << 20;
/** Pieces that wait for room: with them a pipe that was read is filled again by one call. */
const AHEAD_BYTES = 1 << 20;
const RETRY_MS = 1_000;
const MIN_DRAIN_INTERVAL_MS = 1;
const MAX_DRAIN_INTERVAL_MS = 50;

interface Loan {
  readonly piece: Piece;
  /** Bytes that the pipe had taken when the last one of the piece was in. */
  readonly end: number;
}

/** A piece that is not, or not wholly, in the pipe. */
interface Queued {
  readonly piece: Piece;
  rest: Uint8Array;
  isLent: boolean;
}

/**
 * Pieces that were in a pipe when it had to be closed. Whoever still reads it must find them as they were, so they are
 * kept for ever: it is a restore that failed, and our own end is near.
 */
const abandoned: Piece[] = [];

/** `capacity` is what the pipe behind `fd` holds at most, in bytes; without `loans` all is copied. */
export function createOutlet(poller: Poller, fd: number, capacity: number, loans: Loans | undefined): Outlet {
  const queue: Queued[] = [];
  let queuedBytes = 0;
  /** The pipe took less than it was given: it tells when CRIU has read. */
  let isFull = false;
  let wantsMore: ((delivered: boolean) => void) | undefined;
  let closed = false;
  let isRead = true;
  /** Bytes that the pipe has taken. */
  let taken = 0;
  let lent: Loan[] = [];

  const returnLoan = ({ bytes }: Piece): void => {
    if (loans !== undefined) loans.bytes -= bytes.length;
  };

  const giveBack = (isRead: (loan: Loan) => boolean): void => {
    const kept = lent.filter((loan) => !isRead(loan));
    for (const loan of lent) {
      if (!isRead(loan)) continue;
      returnLoan(loan.piece);
      loan.piece.release();
    }
    lent = kept;
  };

  /** Release what CRIU has read for certain: what came since fills the pipe. To ask the pipe is to wait for its lock. */
  const settle = (): void => giveBack(({ end }) => end + capacity <= taken);

  /** Release all that CRIU has read. */
  const settleAll = (): void => {
    if (lent.length === 0) return;
    const read = taken - readableBytes(fd);
    giveBack(({ end }) => end <= read);
  };

  const answer = (delivered: boolean): void => {
    const tell = wantsMore;
    wantsMore = undefined;
    tell?.(delivered);
  };

  /** Nothing more goes into the pipe. */
  const stop = (): void => {
    for (const { piece, isLent, rest } of queue.splice(0)) {
      // Of what was lent in part, the pipe holds the first bytes.
      if (isLent && rest.length < piece.bytes.length) lent.push({ piece, end: taken });
      else {
        if (isLent) returnLoan(piece);
        piece.release();
      }
    }
    queuedBytes = 0;
    watch.setEvents(0);
    answer(false);
  };

  const nobodyReads = (): void => {
    isRead = false;
    stop();
    giveBack(() => true);
  };

  const push = (): void => {
    while (queue.length > 0 && !isFull) {
      const next = together();
      const offered = next.reduce((sum, { rest }) => sum + rest.length, 0);
      const got =
        next[0]?.isLent === true
          ? tryLend(
              fd,
              next.map(({ rest }) => rest),
            )
          : tryWrite(fd, next[0]?.rest ?? NOTHING, next[0]?.rest.length ?? 0);
      if (got === 'closed') {
        nobodyReads();
        return;
      }
      if (got === 'again') {
        isFull = true;
        return;
      }
      if (got === 'refused') {
        copyInstead();
        continue;
      }
      // To offer the rest at once would be to wait for the lock that CRIU has while it copies.
      isFull = got < offered;
      advance(got);
    }
  };

  /** What goes into the pipe by one call. */
  const together = (): Queued[] => {
    const end = queue.findIndex(({ isLent }) => !isLent);
    return end < 0 ? queue.slice(0, MAX_LENT_SEGMENTS) : queue.slice(0, Math.max(1, Math.min(end, MAX_LENT_SEGMENTS)));
  };

  const advance = (bytes: number): void => {
    taken += bytes;
    queuedBytes -= bytes;
    let left = bytes;
    let end = taken - bytes;
    for (let first = queue[0]; first !== undefined; first = queue[0]) {
      const part = Math.min(left, first.rest.length);
      first.rest = first.rest.subarray(part);
      left -= part;
      end += part;
      if (first.rest.length > 0) break;
      queue.shift();
      if (first.isLent) lent.push({ piece: first.piece, end });
      else first.piece.release();
    }
    settle();
    if (queuedBytes < AHEAD_BYTES) answer(true);
  };

  const copyInstead = (): void => {
    for (const one of queue) {
      if (!one.isLent) continue;
      returnLoan(one.piece);
      one.isLent = false;
    }
    if (loans !== undefined) loans.maxBytes = 0;
  };

  // By edges: whoever asks whether there is room is told so while CRIU is still copying, and would wait for its lock.
  const watch = poller.watch(fd, POLLOUT | POLLET, (revents) => {
    if ((revents & POLLERR) !== 0) nobodyReads();
    else retry();
  });

  const retry = (): void => {
    isFull = false;
    push();
  };
  // A wake-up that was missed costs time, never the restore.
  const fallback = setInterval(retry, RETRY_MS);

  /** A piece that cannot be lent is copied: then it is free as soon as it is in the pipe. */
  const lend = (bytes: Uint8Array): boolean => {
    if (loans === undefined || bytes.length < MIN_LENT_BYTES || isCrowd(loans)) return false;
    if (loans.bytes + bytes.length > loans.maxBytes) settleAll();
    if (loans.bytes + bytes.length > loans.maxBytes) return false;
    loans.bytes += bytes.length;
    return true;
  };

  return {
    write: (piece) =>
      new Promise<boolean>((resolve) => {
        if (closed || !isRead) {
          piece.release();
          resolve(false);
          return;
        }
        queue.push({ piece, rest: piece.bytes, isLent: lend(piece.bytes) });
        queuedBytes += piece.bytes.length;
        wantsMore = resolve;
        if (!isFull) push();
        if (queuedBytes < AHEAD_BYTES) answer(true);
      }),
    emptied: () => polling(() => closed || !isRead || (queue.length === 0 && readableBytes(fd) === 0)),
    drained: () =>
      polling(() => {
        if (!closed) settleAll();
        return closed || (queue.length === 0 && lent.length === 0);
      }),
    close() {
      if (closed) return;
      closed = true;
      stop();
      abandoned.push(...lent.map((loan) => loan.piece));
      clearInterval(fallback);
      watch.close();
      closeFd(fd);
    },
  };
}

const NOTHING = new Uint8Array(0);

/** Ask at growing intervals: a pipe tells nobody when it has become empty. */
async function polling(isOver: () => boolean): Promise<void> {
  let intervalMs = MIN_DRAIN_INTERVAL_MS;
  for (; !isOver(); intervalMs = Math.min(2 * intervalMs, MAX_DRAIN_INTERVAL_MS)) {
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
}
