// SPDX-License-Identifier: Apache-2.0
import { closeFd, setNonblocking, tryRead, tryWrite } from '../../linux/fds.js';
import { type Poller, POLLIN, POLLOUT, type Watch } from '../../linux/poller.js';
import { reopenNonblocking } from './reopen.js';

/** Carries our standard input to the application's, reading no more ahead than one piece. */
export interface InputRelay {
  /** Bytes read from outside and not yet passed on. */
  pending(): Buffer;
  /** The end of the input has been read from outside (what is pending may still come before it). */
  readonly sourceEnded: boolean;
  close(): void;
}

const READ_BYTES = 64 * 1024;

export function createInputRelay(options: {
  poller: Poller;
  /** Our standard input; `silent` for one that neither brings anything nor ends; undefined when it has ended. */
  sourceFd: number | 'silent' | undefined;
  targetFd: number;
  /**
   * False for a terminal, which is not closed at the end of the input. The nearest to a hang-up would be to let the application
   * read an end, but many programs leave at that, and where to take up again is at the next terminal that it is continued on.
   */
  closeTargetAtEnd: boolean;
  /** Bytes of the image that come first. */
  first: Buffer;
  /** Sees (and may shorten) every piece; used to take the interrupt key out. */
  filter?: (piece: Buffer) => Buffer;
}): InputRelay {
  const { poller, targetFd } = options;
  const sourceFd = options.sourceFd === 'silent' ? undefined : options.sourceFd;
  let pending = options.first;
  let sourceEnded = options.sourceFd === undefined;
  let closed = false;
  let sourceWatch: Watch | undefined;
  setNonblocking(targetFd);
  // Another reader may take what we were told of first: a read that waits for more would stop all else that we do. The
  // descriptor itself is watched, since a named pipe without writers does not tell its end to who opened it after them.
  const ownFd = sourceFd === undefined ? undefined : reopenNonblocking(sourceFd, 'read');

  const endTarget = (): void => {
    if (closed) return;
    closed = true;
    targetWatch.close();
    sourceWatch?.close();
    if (ownFd !== undefined) closeFd(ownFd);
    if (options.closeTargetAtEnd) closeFd(targetFd);
  };

  const push = (): void => {
    while (pending.length > 0 && !closed) {
      const put = tryWrite(targetFd, pending, pending.length);
      if (put === 'closed') {
        pending = Buffer.alloc(0);
        endTarget();
        return;
      }
      if (put === 'again') {
        targetWatch.setEvents(POLLOUT);
        sourceWatch?.setEvents(0);
        return;
      }
      pending = pending.subarray(put);
    }
    targetWatch.setEvents(0);
    if (sourceEnded) endTarget();
    else sourceWatch?.setEvents(POLLIN);
  };

  const pull = (): void => {
    if (sourceFd === undefined || closed) return;
    const piece = Buffer.alloc(READ_BYTES);
    let got: number | 'again';
    try {
      got = tryRead(ownFd ?? sourceFd, piece, piece.length);
    } catch {
      // A terminal that has gone away reads as the end.
      got = 0;
    }
    if (got === 'again') return;
    if (got === 0) {
      sourceEnded = true;
      sourceWatch?.setEvents(0);
    } else {
      const taken = piece.subarray(0, got);
      pending = Buffer.concat([pending, options.filter === undefined ? taken : options.filter(taken)]);
    }
    push();
  };

  const targetWatch = poller.watch(targetFd, 0, push);
  if (sourceFd !== undefined) sourceWatch = poller.watch(sourceFd, POLLIN, pull);
  push();

  return {
    pending: () => Buffer.from(pending),
    get sourceEnded() {
      return sourceEnded;
    },
    close: endTarget,
  };
}
