// SPDX-License-Identifier: Apache-2.0
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ImageFileWriter } from '../image/image-file-writer.js';
import type { ImageWriter } from '../image/writer.js';
import { closeFd, enlargePipe, setNonblocking, tryRead } from '../linux/fds.js';
import { type Poller, POLLIN, type Watch } from '../linux/poller.js';
import { acceptUnix, listenUnix } from '../linux/unix-socket.js';
import { createRequestReader } from './protocol.js';

/** The receiving end of a dump: CRIU connects, names its files and hands over a pipe for each. */
export interface Capture {
  /** Called once, at the first file CRIU writes after it froze the application. */
  readonly frozen: Promise<void>;
  /**
   * Resolves when every file that CRIU opened has been read to its end; rejects when that cannot be. Between two files
   * none is open, so it needs to know when the last has been `written`: by then CRIU has sent all its requests.
   */
  complete(written?: Promise<unknown>): Promise<void>;
  /** Close every pipe: CRIU fails, lets go of the application and ends by itself. */
  abort(reason: Error): void;
  /** Names and sizes seen so far. */
  readonly files: ReadonlyMap<string, number>;
}

interface OpenFile {
  readonly name: string;
  readonly fd: number;
  readonly writer: ImageFileWriter;
  watch: Watch | undefined;
  sizeBytes: number;
}

/** CRIU fills a pipe of this size while we are busy elsewhere. */
const PIPE_BYTES = 1 << 20;
/** Reads of one file before the others get a turn. */
const READS_PER_TURN = 8;

export function startCapture(options: { directory: string; poller: Poller; writer: ImageWriter }): Capture {
  const { poller, writer } = options;
  const socketPath = join(options.directory, 'streamer-capture.sock');
  const listenFd = listenUnix(socketPath);
  const files = new Map<string, number>();
  const open = new Set<OpenFile>();
  const starved = new Set<OpenFile>();
  let connection: { fd: number; watch: Watch; serve: () => void } | undefined;
  let listening = true;
  let requested: string | undefined;
  let failure: Error | undefined;
  let waitingForRoom = false;
  let settle: { resolve: () => void; reject: (error: Error) => void } | undefined;
  let announceFrozen: () => void = () => undefined;
  const frozen = new Promise<void>((resolve) => (announceFrozen = resolve));

  const stopListening = (): void => {
    if (!listening) return;
    listening = false;
    listenWatch.close();
    closeFd(listenFd);
    rmSync(socketPath, { force: true });
  };

  const closeConnection = (): void => {
    if (connection === undefined) return;
    connection.watch.close();
    closeFd(connection.fd);
    connection = undefined;
  };

  const closeFile = (file: OpenFile): void => {
    file.watch?.close();
    closeFd(file.fd);
    open.delete(file);
    starved.delete(file);
  };

  const fail = (error: Error): void => {
    if (failure !== undefined) return;
    failure = error;
    for (const file of [...open]) closeFile(file);
    closeConnection();
    stopListening();
    settle?.reject(error);
  };

  const checkComplete = (): void => {
    if (failure === undefined && open.size === 0 && requested === undefined) settle?.resolve();
  };

  const waitForRoom = (): void => {
    if (waitingForRoom) return;
    waitingForRoom = true;
    writer.room().then(
      () => {
        waitingForRoom = false;
        if (writer.error !== undefined) {
          fail(writer.error);
          return;
        }
        const again = [...starved];
        starved.clear();
        guard(() => {
          for (const file of again) drain(file);
        });
      },
      (error: unknown) => fail(error instanceof Error ? error : new Error(String(error))),
    );
  };

  /** Read what the pipe holds into the image's own blocks: the only copy before compression. */
  const drain = (file: OpenFile): void => {
    if (writer.error !== undefined) {
      fail(writer.error);
      return;
    }
    for (let turn = 0; turn < READS_PER_TURN; turn++) {
      const region = file.writer.reserve();
      if (region === undefined) {
        file.watch?.setEvents(0);
        starved.add(file);
        waitForRoom();
        return;
      }
      const got = tryRead(file.fd, region, region.length);
      if (got === 'again') {
        file.writer.commit(0);
        break;
      }
      if (got === 0) {
        file.writer.commit(0);
        file.writer.end();
        files.set(file.name, file.sizeBytes);
        closeFile(file);
        checkComplete();
        return;
      }
      file.writer.commit(got);
      file.sizeBytes += got;
    }
    file.watch?.setEvents(POLLIN);
  };

  const prepare = (name: string, fd: number): OpenFile => {
    try {
      setNonblocking(fd);
      enlargePipe(fd, PIPE_BYTES);
      return { name, fd, writer: writer.file(name), watch: undefined, sizeBytes: 0 };
    } catch (error) {
      // With our end open CRIU would wait for a reader for ever, and the application with it.
      closeFd(fd);
      throw error;
    }
  };

  const startFile = (name: string, fd: number): void => {
    const file = prepare(name, fd);
    open.add(file);
    files.set(name, 0);
    file.watch = poller.watch(fd, POLLIN, () => guard(() => drain(file)));
  };

  const serveRequests = (fd: number): (() => void) => {
    const reader = createRequestReader(fd);
    return () => {
      for (;;) {
        const step = reader.read();
        if (step.kind === 'again') return;
        if (step.kind === 'end') {
          closeConnection();
          checkComplete();
          return;
        }
        if (step.kind === 'request') {
          // With --cpu-cap, cpuinfo.img is written before the freeze; everything else after it.
          if (step.filename !== 'cpuinfo.img') announceFrozen();
          requested = step.filename;
          reader.expectPipe();
        } else {
          const name = requested ?? '';
          requested = undefined;
          startFile(name, step.fd);
        }
      }
    };
  };

  const guard = (action: () => void): void => {
    try {
      action();
    } catch (error) {
      fail(error instanceof Error ? error : new Error(String(error)));
    }
  };

  const accept = (): void => {
    const fd = acceptUnix(listenFd);
    if (fd === 'again') return;
    stopListening();
    const serve = serveRequests(fd);
    connection = { fd, serve, watch: poller.watch(fd, POLLIN, () => guard(serve)) };
  };

  /** Take what CRIU has sent already: poll may not have told of it yet. */
  const catchUp = (): void => {
    if (listening) accept();
    connection?.serve();
  };

  const listenWatch = poller.watch(listenFd, POLLIN, () => guard(accept));

  return {
    frozen,
    files,
    abort: fail,
    complete: (written = Promise.resolve()) =>
      new Promise<void>((resolve, reject) => {
        if (failure !== undefined) {
          reject(failure);
          return;
        }
        settle = { resolve: () => undefined, reject };
        written.then(() => {
          settle = { resolve, reject };
          guard(catchUp);
          checkComplete();
        }, reject);
      }).finally(() => {
        closeConnection();
        stopListening();
      }),
  };
}
