// SPDX-License-Identifier: Apache-2.0
import { hasErrno } from '../../../src/base/errors.js';
import { closeFd, makePipe, setNonblocking, tryRead, tryWrite } from '../../../src/linux/fds.js';
import { type Poller, POLLIN, POLLOUT } from '../../../src/linux/poller.js';
import { connectUnix, sendWithFds } from '../linux/scm.js';

/** A request as CRIU sends it: its length, then field 1 of a protobuf. */
export function requestBytes(filename: string): Buffer {
  const name = Buffer.from(filename);
  const length: number[] = [];
  for (let rest = name.length; ; rest >>= 7) {
    length.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest <= 127) break;
  }
  const body = Buffer.concat([Buffer.from([0x0a, ...length]), name]);
  const head = Buffer.alloc(4);
  head.writeUInt32LE(body.length);
  return Buffer.concat([head, body]);
}

/** CRIU's side of the stream protocol, in this process: as many files at once as one likes. */
export class FakeCriu {
  readonly socketFd: number;
  /** As CRIU's tasks share one lock, requests never interleave. */
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly poller: Poller,
    socketPath: string,
  ) {
    this.socketFd = connectUnix(socketPath);
  }

  disconnect(): void {
    closeFd(this.socketFd);
  }

  /** Name a file of a dump. Returns the end to write it to. */
  async openForDump(name: string): Promise<number> {
    return await this.alone(async () => {
      await this.send(requestBytes(name));
      const pipe = makePipe();
      await this.send(Buffer.from('\0'), pipe.readFd);
      closeFd(pipe.readFd);
      setNonblocking(pipe.writeFd);
      return pipe.writeFd;
    });
  }

  /** Ask for a file at restore. Returns the end to read it from, or undefined when there is none. */
  async openForRestore(name: string): Promise<number | undefined> {
    return await this.alone(() => this.ask(name));
  }

  /** Whether the server has closed the connection; by a reset where it had not read all that we sent. */
  isHungUp(): boolean {
    try {
      return tryRead(this.socketFd, Buffer.alloc(1), 1) === 0;
    } catch (error) {
      if (hasErrno(error, 'ECONNRESET')) return true;
      throw error;
    }
  }

  private async alone<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.last.then(action);
    this.last = turn.catch(() => undefined);
    return await turn;
  }

  private async ask(name: string): Promise<number | undefined> {
    await this.send(requestBytes(name));
    const reply = Buffer.alloc(6);
    for (let filled = 0; filled < 6;) {
      const got = tryRead(this.socketFd, reply.subarray(filled), 6 - filled);
      if (got === 0) throw new Error('the server closed the connection');
      if (got === 'again') await ready(this.poller, this.socketFd, POLLIN);
      else filled += got;
    }
    if (reply.toString('hex') === '020000000800') return undefined;
    if (reply.toString('hex') !== '020000000801') throw new Error(`strange reply ${reply.toString('hex')}`);
    const pipe = makePipe();
    await this.send(Buffer.from('\0'), pipe.writeFd);
    closeFd(pipe.writeFd);
    setNonblocking(pipe.readFd);
    return pipe.readFd;
  }

  /** Dump a whole file in writes of the sizes that `steps` gives. False when the server has closed the pipe. */
  async dump(name: string, bytes: Uint8Array, steps: () => number = () => 1 << 20): Promise<boolean> {
    const fd = await this.openForDump(name);
    try {
      return await writeAll(this.poller, fd, bytes, steps);
    } finally {
      closeFd(fd);
    }
  }

  /** Read a whole file in reads of the sizes that `steps` gives; undefined when the image has none. */
  async restore(name: string, steps: () => number = () => 1 << 20): Promise<Buffer | undefined> {
    const fd = await this.openForRestore(name);
    if (fd === undefined) return undefined;
    try {
      return await readAll(this.poller, fd, steps);
    } finally {
      closeFd(fd);
    }
  }

  async send(bytes: Buffer, fd?: number): Promise<void> {
    while (!sendWithFds(this.socketFd, bytes, fd === undefined ? [] : [fd])) {
      await ready(this.poller, this.socketFd, POLLOUT);
    }
  }
}

export async function writeAll(poller: Poller, fd: number, bytes: Uint8Array, steps: () => number): Promise<boolean> {
  for (let rest = bytes; rest.length > 0;) {
    const put = tryWrite(fd, rest, Math.min(rest.length, steps()));
    if (put === 'closed') return false;
    if (put === 'again') await ready(poller, fd, POLLOUT);
    else {
      rest = rest.subarray(put);
      // Others get their turn between any two writes.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  return true;
}

export async function readAll(poller: Poller, fd: number, steps: () => number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (;;) {
    const piece = Buffer.allocUnsafe(Math.max(1, steps()));
    const got = tryRead(fd, piece, piece.length);
    if (got === 0) return Buffer.concat(pieces);
    if (got === 'again') await ready(poller, fd, POLLIN);
    else {
      pieces.push(piece.subarray(0, got));
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/** Wait until poll tells of a descriptor. */
export async function ready(poller: Poller, fd: number, events: number): Promise<void> {
  await new Promise<void>((resolve) => {
    const watch = poller.watch(fd, events, () => {
      watch.close();
      resolve();
    });
  });
}
