// SPDX-License-Identifier: Apache-2.0
import { closeFd, setNonblocking, tryRead } from '../../linux/fds.js';
import { SystemError } from '../../linux/libc.js';
import { type Poller, POLLIN } from '../../linux/poller.js';
import type { Sink } from './sink.js';

/** Carries what the application writes into a pipe (or its terminal) to a sink, in order, without losing a byte. */
export interface OutputRelay {
  /** Read all there is now. With the application frozen, nothing of its output remains inside afterwards. */
  drain(): void;
  /** Every writer has closed its end. */
  readonly ended: boolean;
  /** All that was read since this relay began. */
  readonly readBytes: number;
  close(): void;
}

/** Above this the reader waits for the sink: a slow reader outside slows the application, as a pipe would. */
const HIGH_WATER_BYTES = 256 * 1024;
const READ_BYTES = 64 * 1024;

export function createOutputRelay(options: {
  poller: Poller;
  fd: number;
  sink: Sink;
  /** False for a terminal, which does not end, whoever comes and goes at either side. */
  closeFdAtEnd: boolean;
}): OutputRelay {
  const { fd, sink, poller } = options;
  let ended = false;
  let readBytes = 0;
  setNonblocking(fd);

  const readOnce = (): boolean => {
    if (ended) return false;
    const piece = Buffer.allocUnsafeSlow(READ_BYTES);
    const got = readOrEnd(fd, piece);
    if (got === 'again') return false;
    if (got === 0) {
      finish();
      return false;
    }
    readBytes += got;
    sink.push(got < READ_BYTES / 2 ? Buffer.from(piece.subarray(0, got)) : piece.subarray(0, got));
    return true;
  };

  const finish = (): void => {
    if (ended) return;
    ended = true;
    watch.close();
    if (options.closeFdAtEnd) closeFd(fd);
  };

  const watch = poller.watch(fd, POLLIN, () => {
    if (ended) return;
    readOnce();
    if (sink.pendingBytes > HIGH_WATER_BYTES) watch.setEvents(0);
  });

  sink.onChange(() => {
    if (ended) return;
    // Nobody reads our output: the application must learn it as it would from a pipe, by EPIPE. What comes from a terminal is
    // read on, for nobody: an application that has survived the hang-up must not wait for a reader, and one that it has on
    // another terminal later shall not find that its own has hung up.
    if (sink.broken && options.closeFdAtEnd) finish();
    else watch.setEvents(POLLIN);
  });

  return {
    drain() {
      // It reads nothing more once it has ended.
      while (readOnce());
    },
    get ended() {
      return ended;
    },
    get readBytes() {
      return readBytes;
    },
    close: finish,
  };
}

function readOrEnd(fd: number, piece: Buffer): number | 'again' {
  try {
    return tryRead(fd, piece, piece.length);
  } catch (error) {
    // The master of a terminal reports EIO while nobody has the other end open.
    if (error instanceof SystemError && error.code === 'EIO') return 'again';
    throw error;
  }
}
