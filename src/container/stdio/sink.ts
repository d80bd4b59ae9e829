// SPDX-License-Identifier: Apache-2.0
import { constants, fstatSync, ftruncateSync, fsyncSync, openSync } from 'node:fs';
import { FastFreezeError, asFastFreezeError } from '../../base/errors.js';
import { closeFd, tryWrite } from '../../linux/fds.js';
import { SystemError } from '../../linux/libc.js';
import { type Poller, POLLERR, POLLHUP, POLLOUT } from '../../linux/poller.js';
import { reopenNonblocking } from './reopen.js';

/** Where the application's output goes: our own standard output or error, or a file of ours. */
export interface Sink {
  /** Take bytes; they are written in order as the other side takes them. */
  push(bytes: Buffer): void;
  readonly pendingBytes: number;
  /** What is not written yet, copied. */
  pending(): Buffer;
  /** Hold back what is pending (a checkpoint may carry it) and go on. */
  pause(): void;
  resume(): void;
  /** True when all was written within `timeoutMs`; false when the other side does not take it. */
  flush(timeoutMs: number): Promise<boolean>;
  /** Called when everything pending has been written, and when the other side has gone. */
  onChange(listener: () => void): void;
  /** True when nobody reads any more. */
  readonly broken: boolean;
  /** Our file's path and exact length, for `--output` and `--error`. */
  file: () => { path: string; lengthBytes: number } | undefined;
  close(): void;
}

/** Most a pipe takes without blocking once poll says that it is writable. */
const ATOMIC_BYTES = 4096;
/** A file system that is full is tried again this often. */
const FULL_RETRY_MS = 500;

/** A sink on one of our own descriptors. Never blocks, and never changes flags that its other users see. */
export function descriptorSink(poller: Poller, fd: number): Sink {
  // Where only the shared description is to be had, it is written to in small pieces.
  const own = reopenNonblocking(fd, 'write');
  const target = own ?? fd;
  const step = own === undefined ? ATOMIC_BYTES : Number.MAX_SAFE_INTEGER;
  return createSink({ poller, fd: target, step, close: () => (own === undefined ? undefined : closeFd(own)) });
}

/** A sink on a file of ours. At restore it is cut back to `lengthBytes`, so that nothing appears twice. */
export function fileSink(poller: Poller, path: string, lengthBytes: number | undefined): Sink {
  const op = 'open the output file';
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o666);
  } catch (error) {
    throw asFastFreezeError(error, op, path);
  }
  if (lengthBytes !== undefined && fstatSync(fd).size < lengthBytes) {
    closeFd(fd);
    throw new FastFreezeError({
      code: 'image',
      op: 'continue the output file',
      subject: path,
      reason: `it has fewer bytes than the ${lengthBytes} it had at the checkpoint`,
      hint: 'bring the file back, or start over with --no-restore',
    });
  }
  ftruncateSync(fd, lengthBytes ?? 0);
  closeFd(fd);
  // Appending keeps our position right whatever else is done to the file.
  const append = openSync(path, constants.O_WRONLY | constants.O_APPEND);
  const sink = createSink({ poller, fd: append, step: Number.MAX_SAFE_INTEGER, close: () => closeFd(append) });
  sink.file = () => {
    fsyncSync(append);
    return { path, lengthBytes: fstatSync(append).size };
  };
  return sink;
}

const TAKES_NOTHING: readonly string[] = ['EIO', 'EBADF'];

function createSink(options: { poller: Poller; fd: number; step: number; close: () => void }): Sink {
  const queue: Buffer[] = [];
  let pendingBytes = 0;
  let paused = false;
  let broken = false;
  let retry: NodeJS.Timeout | undefined;
  const listeners = new Set<() => void>();
  const changed = (): void => {
    for (const listener of [...listeners]) listener();
  };
  const regular = fstatSync(options.fd).isFile();
  // A regular file takes everything at once, and nobody could tell us when it takes more.
  const step = regular ? Number.MAX_SAFE_INTEGER : options.step;

  const write = (): void => {
    while (queue.length > 0 && !paused && !broken) {
      const head = queue[0];
      if (head === undefined) break;
      const put = writeOrClosed(options.fd, head, Math.min(head.length, step));
      if (put === 'full') {
        // Nothing is lost while somebody makes room: the application waits as at a full pipe.
        retry ??= setTimeout(() => {
          retry = undefined;
          write();
        }, FULL_RETRY_MS);
        return;
      }
      if (put === 'closed') {
        broken = true;
        queue.length = 0;
        pendingBytes = 0;
        break;
      }
      if (put === 'again') {
        watch?.setEvents(POLLOUT);
        return;
      }
      pendingBytes -= put;
      if (put === head.length) queue.shift();
      else queue[0] = head.subarray(put);
      // A blocking descriptor may take one such piece per poll, not more.
      if (step === ATOMIC_BYTES && queue.length > 0) {
        watch?.setEvents(POLLOUT);
        return;
      }
    }
    watch?.setEvents(0);
    changed();
  };

  const watch = regular
    ? undefined
    : options.poller.watch(options.fd, 0, (revents) => {
        if ((revents & (POLLERR | POLLHUP)) !== 0 && (revents & POLLOUT) === 0) {
          broken = true;
          queue.length = 0;
          pendingBytes = 0;
          watch?.setEvents(0);
          changed();
          return;
        }
        write();
      });

  return {
    push(bytes) {
      if (broken || bytes.length === 0) return;
      queue.push(bytes);
      pendingBytes += bytes.length;
      if (queue.length !== 1 || paused) return;
      if (step !== ATOMIC_BYTES) write();
      else watch?.setEvents(POLLOUT);
    },
    get pendingBytes() {
      return pendingBytes;
    },
    pending: () => Buffer.concat(queue),
    pause() {
      paused = true;
      watch?.setEvents(0);
    },
    resume() {
      paused = false;
      if (queue.length > 0) write();
    },
    flush: (timeoutMs) =>
      new Promise<boolean>((resolve) => {
        if (pendingBytes === 0) {
          resolve(true);
          return;
        }
        const finish = (): void => {
          clearTimeout(timer);
          listeners.delete(look);
          resolve(pendingBytes === 0);
        };
        const look = (): void => {
          if (pendingBytes === 0) finish();
        };
        const timer = setTimeout(finish, timeoutMs);
        listeners.add(look);
      }),
    onChange: (listener) => void listeners.add(listener),
    get broken() {
      return broken;
    },
    file: () => undefined,
    close() {
      clearTimeout(retry);
      watch?.close();
      options.close();
    },
  };
}

/**
 * A terminal that has hung up answers EIO, one that was opened for reading only (`< /dev/tty`) EBADF: nobody will read there,
 * which is no reason to end the job.
 */
function writeOrClosed(fd: number, bytes: Buffer, length: number): number | 'again' | 'closed' | 'full' {
  try {
    return tryWrite(fd, bytes, length);
  } catch (error) {
    if (error instanceof SystemError && TAKES_NOTHING.includes(error.code) && !fstatSync(fd).isFile()) return 'closed';
    if (error instanceof SystemError && (error.code === 'ENOSPC' || error.code === 'EDQUOT')) return 'full';
    throw error;
  }
}
