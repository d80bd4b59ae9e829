// SPDX-License-Identifier: Apache-2.0
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ImageFileReader } from '../image/image-file-reader.js';
import type { ImageReader } from '../image/reader.js';
import type { Piece } from '../image/pieces.js';
import { closeFd, enlargePipe, readableBytes, setNonblocking, tryLend, tryWrite } from '../linux/fds.js';
import { type Poller, POLLERR, POLLIN, POLLOUT, type Watch } from '../linux/poller.js';
import { acceptUnix, listenUnix } from '../linux/unix-socket.js';
import { createRequestReader, existsReply } from './protocol.js';

/** The sending end of a restore: CRIU asks for files in its own order, several at once, and reads each from a pipe. */
export interface Serving {
  /** Rejects at the first byte that cannot be vouched for; never resolves. */
  readonly failed: Promise<never>;
  /** Bytes handed to CRIU so far. */
  readonly servedBytes: () => number;
  /** Close everything. CRIU has what it needed, or must not get more. */
  close(): void;
}

const PIPE_BYTES = 1 << 20;

export function startServing(options: { directory: string; poller: Poller; image: ImageReader }): Serving {
  const { poller, image } = options;
  const socketPath = join(options.directory, 'streamer-serve.sock');
  const listenFd = listenUnix(socketPath);
  const outlets = new Set<Outlet>();
  const loans: Loans = { bytes: 0, maxBytes: MAX_LENT_BYTES, outlets: 0 };
  let connection: { fd: number; watch: Watch } | undefined;
  let listening = true;
  let closed = false;
  let servedBytes = 0;
  let reject: (error: Error) => void = () => undefined;
  const failed = new Promise<never>((_, no) => (reject = no));
  // Whoever awaits `failed` sees the rejection; until somebody does it must not end the process.
  failed.catch(() => undefined);

  const close = (): void => {
    if (closed) return;
    closed = true;
    for (const outlet of [...outlets]) outlet.close();
    if (connection !== undefined) {
      connection.watch.close();
      closeFd(connection.fd);
    }
    stopListening();
  };

  const stopListening = (): void => {
    if (!listening) return;
    listening = false;
    listenWatch.close();
    closeFd(listenFd);
    rmSync(socketPath, { force: true });
  };

  // The pipes stay open until `close`: an early end of file would be something that CRIU acts upon.
  const fail = (error: unknown): void => {
    reject(error instanceof Error ? error : new Error(String(error)));
  };

  const startFile = (name: string, file: ImageFileReader, fd: number): void => {
    try {
      setNonblocking(fd);
      // A small file fits the default pipe; growing it would only cost kernel memory.
      if (file.sizeBytes > 65536) enlargePipe(fd, PIPE_BYTES);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    // Of page files CRIU knows the length; where it reads to the end, it must not have to wait for that end.
    const isPages = name.startsWith('pages-');
    const outlet = createOutlet(poller, fd, isPages ? loans : undefined);
    outlets.add(outlet);
    if (isPages) loans.outlets++;
    const served = (bytes: number): void => void (servedBytes += bytes);
    pump(file, outlet, loans, served).then(() => {
      outlets.delete(outlet);
      if (isPages) loans.outlets--;
      outlet.close();
      file.close();
    }, fail);
  };

  const serveRequests = (fd: number): (() => void) => {
    const reader = createRequestReader(fd);
    let pending: { readonly name: string; readonly file: ImageFileReader } | undefined;
    return () => {
      for (;;) {
        const step = reader.read();
        if (step.kind === 'again') return;
        if (step.kind === 'end') {
          connection?.watch.close();
          closeFd(fd);
          connection = undefined;
          return;
        }
        if (step.kind === 'request') {
          const file = image.open(step.filename);
          pending = file === undefined ? undefined : { name: step.filename, file };
          tryWrite(fd, existsReply(pending !== undefined), 6);
          if (pending !== undefined) reader.expectPipe();
        } else if (pending !== undefined) {
          startFile(pending.name, pending.file, step.fd);
          pending = undefined;
        }
      }
    };
  };

  const guard = (action: () => void): void => {
    try {
      if (!closed) action();
    } catch (error) {
      fail(error);
    }
  };

  const listenWatch = poller.watch(listenFd, POLLIN, () =>
    guard(() => {
      const fd = acceptUnix(listenFd);
      if (fd === 'again') return;
      stopListening();
      const step = serveRequests(fd);
      connection = { fd, watch: poller.watch(fd, POLLIN, () => guard(step)) };
    }),
  );

  return { failed, servedBytes: () => servedBytes, close };
}

/** Write one file, chunk by chunk, each verified before its first byte leaves. */
async function pump(
  file: ImageFileReader,
  outlet: Outlet,
  loans: Loans,
  count: (bytes: number) => void,
): Promise<void> {
  for (;;) {
    // Of many processes most wait for a CPU: memory that is brought for them too early lacks those that could go on.
    if (isCrowd(loans)) await outlet.emptied();
    const piece = await file.next();
    if (piece === undefined) break;
    const { length } = piece.bytes;
    if (!(await outlet.write(piece))) return;
    count(length);
  }
  await outlet.drained();
}

interface Outlet {
  /**
   * Resolves to true when all bytes are in the pipe, false when CRIU closed its end or we did. The piece becomes the
   * outlet's, which releases it as soon as its memory is nobody's any more.
   */
  write(piece: Piece): Promise<boolean>;
  /** Resolves when CRIU has read all of it: a piece that comes next goes into the pipe whole. */
  emptied(): Promise<void>;
  /** Resolves when CRIU has read what was lent to the pipe: only then may it be closed. */
  drained(): Promise<void>;
  close(): void;
}

/*
 * Memory pages are lent to the pipe instead of written into it. That saves a copy of the whole application, and, since
 * a pipe is locked while either side copies, lets CRIU copy nearly all of the time. A piece that was lent stays as it is
 * until CRIU has read past it.
 */

/** For less a copy is cheaper than the bookkeeping. */
const MIN_LENT_BYTES = 128 << 10;
/** All that may be lent at a time: files that CRIU reads later must not keep the memory that others need now. */
const MAX_LENT_BYTES = 4 << 20;
const MIN_DRAIN_INTERVAL_MS = 1;
const MAX_DRAIN_INTERVAL_MS = 50;

/** What the outlets of one restore share. */
interface Loans {
  bytes: number;
  maxBytes: number;
  /** Page files that are being served. */
  outlets: number;
}

/** More page files at once than memory in flight can serve well while each keeps some. */
function isCrowd(loans: Loans): boolean {
  return loans.outlets > MAX_OUTLETS_AHEAD;
}

const MAX_OUTLETS_AHEAD = 3;

interface Loan {
  readonly piece: Piece;
  /** Bytes that the pipe had taken when the last one of the piece was in. */
  readonly end: number;
}

/**
 * Pieces that were in a pipe when it had to be closed. Whoever still reads it must find them as they were, so they are
 * kept for ever: it is a restore that failed, and our own end is near.
 */
const abandoned: Piece[] = [];

function createOutlet(poller: Poller, fd: number, loans: Loans | undefined): Outlet {
  let piece: Piece | undefined;
  /** Of the piece, what is not in the pipe yet. */
  let rest: Uint8Array = NOTHING;
  let isLent = false;
  let done: ((delivered: boolean) => void) | undefined;
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

  /** Release what CRIU has read. */
  const settle = (): void => {
    if (lent.length === 0) return;
    const read = taken - readableBytes(fd);
    giveBack(({ end }) => end <= read);
  };

  const finish = (delivered: boolean): void => {
    const tell = done;
    if (piece !== undefined && isLent) lent.push({ piece, end: taken });
    else piece?.release();
    piece = undefined;
    rest = NOTHING;
    done = undefined;
    watch.setEvents(0);
    tell?.(delivered);
  };

  const nobodyReads = (): void => {
    isRead = false;
    finish(false);
    giveBack(() => true);
  };

  const push = (): void => {
    while (piece !== undefined) {
      const put = isLent ? tryLend(fd, rest) : tryWrite(fd, rest, rest.length);
      if (put === 'closed') {
        nobodyReads();
        return;
      }
      if (put === 'again') {
        watch.setEvents(POLLOUT);
        return;
      }
      if (put === 'refused') {
        returnLoan(piece);
        isLent = false;
        if (loans !== undefined) loans.maxBytes = 0;
        continue;
      }
      taken += put;
      rest = rest.subarray(put);
      if (rest.length > 0) continue;
      // Right now the pipe is not locked: CRIU wakes up only to read what has just come.
      settle();
      finish(true);
    }
  };

  const watch = poller.watch(fd, 0, (revents) => {
    if ((revents & POLLERR) !== 0) nobodyReads();
    else push();
  });

  /** A piece that cannot be lent is copied: then it is free as soon as it is in the pipe. */
  const lend = (bytes: Uint8Array): boolean => {
    if (loans === undefined || bytes.length < MIN_LENT_BYTES || isCrowd(loans)) return false;
    if (loans.bytes + bytes.length > loans.maxBytes) settle();
    if (loans.bytes + bytes.length > loans.maxBytes) return false;
    loans.bytes += bytes.length;
    return true;
  };

  return {
    write: (next) =>
      new Promise<boolean>((resolve) => {
        if (closed) {
          next.release();
          resolve(false);
          return;
        }
        isLent = lend(next.bytes);
        piece = next;
        rest = next.bytes;
        done = resolve;
        push();
      }),
    emptied: () => polling(() => closed || !isRead || readableBytes(fd) === 0),
    drained: () =>
      polling(() => {
        if (!closed) settle();
        return closed || lent.length === 0;
      }),
    close() {
      if (closed) return;
      closed = true;
      finish(false);
      abandoned.push(...lent.map((loan) => loan.piece));
      watch.close();
      closeFd(fd);
    },
  };
}

/** Ask at growing intervals: a pipe tells nobody when it has become empty. */
async function polling(isOver: () => boolean): Promise<void> {
  let intervalMs = MIN_DRAIN_INTERVAL_MS;
  for (; !isOver(); intervalMs = Math.min(2 * intervalMs, MAX_DRAIN_INTERVAL_MS)) {
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
}

const NOTHING = new Uint8Array(0);
