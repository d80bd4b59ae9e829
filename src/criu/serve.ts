// SPDX-License-Identifier: Apache-2.0
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ImageFileReader } from '../image/image-file-reader.js';
import type { ImageReader } from '../image/reader.js';
import { closeFd, enlargePipe, setNonblocking, tryWrite } from '../linux/fds.js';
import { type Poller, POLLIN, type Watch } from '../linux/poller.js';
import { acceptUnix, listenUnix } from '../linux/unix-socket.js';
import { type Loans, type Outlet, createLoans, createOutlet, isCrowd } from './outlet.js';
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
const DEFAULT_PIPE_BYTES = 1 << 16;

export function startServing(options: { directory: string; poller: Poller; image: ImageReader }): Serving {
  const { poller, image } = options;
  const socketPath = join(options.directory, 'streamer-serve.sock');
  const listenFd = listenUnix(socketPath);
  const outlets = new Set<Outlet>();
  const loans = createLoans();
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
    let capacity: number;
    try {
      setNonblocking(fd);
      // A small file fits the default pipe; growing it would only cost kernel memory.
      capacity = file.sizeBytes > DEFAULT_PIPE_BYTES ? enlargePipe(fd, PIPE_BYTES) : DEFAULT_PIPE_BYTES;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    // Of page files CRIU knows the length; where it reads to the end, it must not have to wait for that end.
    const isPages = name.startsWith('pages-');
    const outlet = createOutlet(poller, fd, capacity, isPages ? loans : undefined);
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
