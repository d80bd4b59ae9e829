// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createInputRelay } from '../../../../src/container/stdio/input-relay.js';
import { createOutputRelay } from '../../../../src/container/stdio/output-relay.js';
import { descriptorSink, fileSink } from '../../../../src/container/stdio/sink.js';
import {
  type Pipe,
  closeFd,
  makePipe,
  readableBytes,
  setNonblocking,
  tryRead,
  tryWrite,
} from '../../../../src/linux/fds.js';
import { openPseudoTerminal } from '../../../../src/linux/terminal.js';
import { until } from '../../../support/until.js';
import { noise } from '../../image/support.js';
import { makeDirectory, makePoller, within } from '../../linux/support.js';

jest.setTimeout(20_000);

/** Descriptors that a test may close itself; what it leaves is closed after it. */
let open: Set<number>;
beforeEach(() => {
  open = new Set();
});
afterEach(() => open.forEach((fd) => closeFd(fd)));

function pipe(nonblockingReader = true): Pipe {
  const made = makePipe();
  open.add(made.readFd).add(made.writeFd);
  if (nonblockingReader) setNonblocking(made.readFd);
  return made;
}

function close(fd: number): void {
  open.delete(fd);
  closeFd(fd);
}

/** Everything that can be read now. */
function take(fd: number, limit = Infinity): Buffer {
  const pieces: Buffer[] = [];
  for (let total = 0; total < limit;) {
    const piece = Buffer.alloc(Math.min(65536, limit - total));
    const got = tryRead(fd, piece, piece.length);
    if (got === 'again' || got === 0) break;
    pieces.push(piece.subarray(0, got));
    total += got;
  }
  return Buffer.concat(pieces);
}

describe('a sink on a descriptor', () => {
  test('keeps the order and every byte, however slowly the reader takes them', async () => {
    const outside = pipe();
    const sink = descriptorSink(makePoller(), outside.writeFd);
    const all = noise(1_000_000, 1);
    for (let at = 0; at < all.length; at += 30_000) sink.push(all.subarray(at, at + 30_000));
    expect(sink.pendingBytes).toBeGreaterThan(800_000);
    const got: Buffer[] = [];
    await until(
      'all bytes',
      () => {
        got.push(take(outside.readFd, 20_000));
        return got.reduce((sum, piece) => sum + piece.length, 0) === all.length;
      },
      15_000,
    );
    expect(Buffer.concat(got).equals(all)).toBe(true);
    expect(sink.pendingBytes).toBe(0);
    sink.close();
  });

  test('does not make its descriptor non-blocking for those who share it', () => {
    const outside = pipe(false);
    const sink = descriptorSink(makePoller(), outside.writeFd);
    const flags = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${outside.writeFd}`, 'utf8'))?.[1];
    expect(Number.parseInt(flags ?? '', 8) & constants.O_NONBLOCK).toBe(0);
    sink.close();
  });

  test('flush tells whether all was written in time', async () => {
    const outside = pipe();
    const sink = descriptorSink(makePoller(), outside.writeFd);
    expect(await sink.flush(10)).toBe(true);
    sink.push(noise(200_000, 2));
    expect(await within('the flush', sink.flush(50))).toBe(false);
    const flushed = sink.flush(10_000);
    const reading = setInterval(() => take(outside.readFd), 5);
    expect(await within('the flush', flushed)).toBe(true);
    clearInterval(reading);
    sink.close();
  });

  test('holds back while it is paused, shows what is pending, and goes on in order', async () => {
    const outside = pipe();
    const sink = descriptorSink(makePoller(), outside.writeFd);
    sink.push(Buffer.from('one '));
    sink.pause();
    sink.push(Buffer.from('two '));
    sink.push(Buffer.from('three'));
    await sleep(30);
    expect(take(outside.readFd).toString()).toBe('one ');
    expect(sink.pending().toString()).toBe('two three');
    expect(sink.pendingBytes).toBe(9);
    sink.resume();
    await until('the rest', () => sink.pendingBytes === 0);
    expect(take(outside.readFd).toString()).toBe('two three');
    sink.close();
  });

  test('on a regular file passes on all that has come in several pieces while it was paused', () => {
    const path = join(makeDirectory(), 'out');
    const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o600);
    open.add(fd);
    const sink = descriptorSink(makePoller(), fd);
    sink.pause();
    const pieces = [noise(10_000, 1), noise(3, 2), noise(5_000, 3)];
    for (const piece of pieces) sink.push(piece);
    sink.resume();
    expect(sink.pendingBytes).toBe(0);
    sink.push(noise(4, 4));
    expect(readFileSync(path).equals(Buffer.concat([...pieces, noise(4, 4)]))).toBe(true);
    sink.close();
  });

  test('is broken when its reader has gone, and drops what comes', async () => {
    const outside = pipe();
    const sink = descriptorSink(makePoller(), outside.writeFd);
    let told = 0;
    sink.onChange(() => told++);
    sink.push(noise(200_000, 3));
    close(outside.readFd);
    await until('the break', () => sink.broken);
    expect(told).toBeGreaterThan(0);
    expect(sink.pendingBytes).toBe(0);
    sink.push(Buffer.from('more'));
    expect(sink.pendingBytes).toBe(0);
    sink.close();
  });

  test('is broken, not the end of us, when its terminal hangs up', async () => {
    const { masterFd, path } = openPseudoTerminal();
    const slaveFd = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
    const sink = descriptorSink(makePoller(), slaveFd);
    sink.push(Buffer.from('hello'));
    closeFd(masterFd);
    sink.push(Buffer.from('anybody there?'));
    await until('the break', () => sink.broken, 5_000);
    sink.close();
    closeSync(slaveFd);
  });
});

describe('a sink on a file', () => {
  test('starts empty, appends in order, and tells its exact length', () => {
    const path = join(makeDirectory(), 'out');
    writeFileSync(path, 'of an earlier run');
    const sink = fileSink(makePoller(), path, undefined);
    for (const word of ['a', 'b', 'c']) sink.push(Buffer.from(word));
    expect(sink.pendingBytes).toBe(0);
    expect(readFileSync(path, 'utf8')).toBe('abc');
    expect(sink.file()).toEqual({ path, lengthBytes: 3 });
    sink.close();
  });

  test('is cut back to its length at the checkpoint, and goes on there', () => {
    const path = join(makeDirectory(), 'out');
    writeFileSync(path, 'kept, and what came after the checkpoint');
    const sink = fileSink(makePoller(), path, 5);
    sink.push(Buffer.from(' again'));
    expect(readFileSync(path, 'utf8')).toBe('kept, again');
    sink.close();
  });

  test('is refused when it is shorter than it was, and left as it is', () => {
    const path = join(makeDirectory(), 'out');
    writeFileSync(path, '1234');
    expect(() => fileSink(makePoller(), path, 5)).toThrow(expect.objectContaining({ code: 'image', subject: path }));
    expect(readFileSync(path, 'utf8')).toBe('1234');
    expect(() => fileSink(makePoller(), join(path, 'below'), undefined)).toThrow(/not a directory/);
  });
});

describe('the relay of output', () => {
  test('passes everything on in order, and slows the application when the reader is slow', async () => {
    const poller = makePoller();
    const outside = pipe();
    const inside = pipe(false);
    setNonblocking(inside.writeFd);
    const sink = descriptorSink(poller, outside.writeFd);
    open.delete(inside.readFd);
    const relay = createOutputRelay({ poller, fd: inside.readFd, sink, closeFdAtEnd: true });
    const all = noise(3_000_000, 4);
    let written = 0;
    const write = (): void => {
      const put = tryWrite(inside.writeFd, all.subarray(written), all.length - written);
      if (typeof put === 'number') written += put;
    };
    for (let i = 0; i < 60; i++) {
      write();
      await sleep(2);
    }
    // Nobody reads outside: what the pipes and the relay hold is bounded, and the application waits.
    expect(written).toBeLessThan(800_000);
    const got: Buffer[] = [];
    await until(
      'all bytes',
      () => {
        write();
        got.push(take(outside.readFd, 100_000));
        return got.reduce((sum, piece) => sum + piece.length, 0) === all.length;
      },
      15_000,
    );
    expect(Buffer.concat(got).equals(all)).toBe(true);
    expect(relay.ended).toBe(false);
    close(inside.writeFd);
    await until('the end', () => relay.ended);
    sink.close();
  });

  test('drain leaves nothing in the pipe, and what cannot go out is pending', () => {
    const poller = makePoller();
    const outside = pipe();
    const inside = pipe(false);
    const sink = descriptorSink(poller, outside.writeFd);
    sink.pause();
    open.delete(inside.readFd);
    const relay = createOutputRelay({ poller, fd: inside.readFd, sink, closeFdAtEnd: true });
    const all = noise(65536, 5);
    tryWrite(inside.writeFd, all, all.length);
    relay.drain();
    expect(readableBytes(inside.readFd)).toBe(0);
    expect(sink.pending().equals(all)).toBe(true);
    expect(relay.readBytes).toBe(all.length);
    close(inside.writeFd);
    relay.drain();
    expect(relay.ended).toBe(true);
    relay.drain();
    relay.close();
    sink.close();
  });

  test('lets the application learn of a reader that has gone as from a pipe', async () => {
    const poller = makePoller();
    const outside = pipe();
    const inside = pipe(false);
    setNonblocking(inside.writeFd);
    const sink = descriptorSink(poller, outside.writeFd);
    open.delete(inside.readFd);
    createOutputRelay({ poller, fd: inside.readFd, sink, closeFdAtEnd: true });
    close(outside.readFd);
    await until('EPIPE', () => tryWrite(inside.writeFd, Buffer.alloc(1000), 1000) === 'closed', 5_000);
    sink.close();
  });

  test('takes a terminal without another end for one that waits', async () => {
    const poller = makePoller();
    const outside = pipe();
    const { masterFd, path } = openPseudoTerminal();
    const sink = descriptorSink(poller, outside.writeFd);
    const relay = createOutputRelay({ poller, fd: masterFd, sink, closeFdAtEnd: false });
    const first = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
    tryWrite(first, Buffer.from('one'), 3);
    relay.drain();
    closeSync(first);
    relay.drain();
    expect(relay.ended).toBe(false);
    const second = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
    tryWrite(second, Buffer.from('two'), 3);
    await until('both', () => readableBytes(outside.readFd) === 6);
    relay.close();
    sink.close();
    closeSync(second);
    closeFd(masterFd);
  });
});

describe('the relay of input', () => {
  interface Input {
    readonly source: Pipe;
    readonly target: Pipe;
    readonly relay: ReturnType<typeof createInputRelay>;
  }

  function input(first = '', filter?: (piece: Buffer) => Buffer, withSource = true): Input {
    const source = pipe();
    const target = pipe();
    open.delete(target.writeFd);
    const relay = createInputRelay({
      poller: makePoller(),
      sourceFd: withSource ? source.readFd : undefined,
      targetFd: target.writeFd,
      closeTargetAtEnd: true,
      first: Buffer.from(first),
      ...(filter === undefined ? {} : { filter }),
    });
    return { source, target, relay };
  }

  const isEnd = (fd: number): boolean => tryRead(fd, Buffer.alloc(1), 1) === 0;

  test('brings the bytes of the image first, then those from outside, then the end', async () => {
    const { source, target, relay } = input('saved ');
    tryWrite(source.writeFd, Buffer.from('new'), 3);
    await until('all', () => readableBytes(target.readFd) === 9);
    expect(take(target.readFd).toString()).toBe('saved new');
    expect(relay.sourceEnded).toBe(false);
    close(source.writeFd);
    await until('the end', () => isEnd(target.readFd));
    expect(relay.sourceEnded).toBe(true);
    relay.close();
  });

  test('ends after the bytes of the image when the end had come before the checkpoint', async () => {
    const { target, relay } = input('the rest', undefined, false);
    expect(relay.sourceEnded).toBe(true);
    expect(take(target.readFd).toString()).toBe('the rest');
    await until('the end', () => isEnd(target.readFd));
    expect(isEnd(input('', undefined, false).target.readFd)).toBe(true);
  });

  test('reads no further ahead than one piece when the application does not read', async () => {
    const { source, target, relay } = input();
    setNonblocking(source.writeFd);
    const all = noise(500_000, 6);
    let written = 0;
    const write = (): void => {
      if (written === all.length) return;
      const put = tryWrite(source.writeFd, all.subarray(written), all.length - written);
      if (typeof put === 'number') written += put;
    };
    for (let i = 0; i < 40; i++) {
      write();
      await sleep(2);
    }
    expect(relay.pending().length).toBeLessThanOrEqual(65536);
    expect(written).toBeLessThanOrEqual(4 * 65536);
    const got: Buffer[] = [];
    await until(
      'all bytes',
      () => {
        write();
        if (written === all.length && open.has(source.writeFd)) close(source.writeFd);
        got.push(take(target.readFd, 10_000));
        return got.reduce((sum, piece) => sum + piece.length, 0) === all.length;
      },
      15_000,
    );
    expect(Buffer.concat(got).equals(all)).toBe(true);
    await until('the end', () => isEnd(target.readFd));
  });

  test('passes what the filter leaves, and waits for more when it leaves nothing', async () => {
    const { source, target, relay } = input('', (piece) => Buffer.from(piece.filter((byte) => byte !== 3)));
    tryWrite(source.writeFd, Buffer.from([3, 3]), 2);
    await sleep(20);
    tryWrite(source.writeFd, Buffer.from([0x61, 3, 0x62]), 3);
    await until('the rest', () => readableBytes(target.readFd) === 2);
    expect(take(target.readFd).toString()).toBe('ab');
    relay.close();
  });

  test('stops reading when the application has closed its input, and takes nothing more from outside', async () => {
    const { source, target, relay } = input();
    close(target.readFd);
    tryWrite(source.writeFd, Buffer.from('lost'), 4);
    await until('the byte to be taken', () => readableBytes(source.readFd) === 0);
    tryWrite(source.writeFd, Buffer.from('kept for others'), 15);
    await sleep(40);
    expect(readableBytes(source.readFd)).toBe(15);
    relay.close();
  });

  test('that is silent brings the bytes of the image, and neither more nor an end', async () => {
    const target = pipe();
    open.delete(target.writeFd);
    const poller = makePoller();
    const relay = createInputRelay({
      ...{ poller, sourceFd: 'silent', targetFd: target.writeFd, closeTargetAtEnd: true },
      first: Buffer.from('saved'),
    });
    expect(take(target.readFd).toString()).toBe('saved');
    await sleep(20);
    expect(tryRead(target.readFd, Buffer.alloc(1), 1)).toBe('again');
    expect(relay.sourceEnded).toBe(false);
    relay.close();
    expect(isEnd(target.readFd)).toBe(true);
  });

  test('does not wait for bytes that another reader has taken', async () => {
    const source = pipe(false);
    const target = pipe();
    open.delete(target.writeFd);
    const relay = createInputRelay({
      ...{ poller: makePoller(), sourceFd: source.readFd, targetFd: target.writeFd, closeTargetAtEnd: true },
      first: Buffer.alloc(0),
    });
    // Whoever waits in a read gets this, seconds later.
    const late = spawn('sh', ['-c', 'sleep 3; printf late >&3'], {
      stdio: ['ignore', 'ignore', 'ignore', source.writeFd],
    });
    const lateEnded = once(late, 'exit');
    await sleep(20);
    tryWrite(source.writeFd, Buffer.from('taken'), 5);
    // The poller's thread hears of it; we are busy until the other reader has been there.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
    expect(tryRead(source.readFd, Buffer.alloc(10), 10)).toBe(5);
    await sleep(20);
    expect(take(target.readFd).toString()).toBe('');
    await within('the late bytes', lateEnded);
    await until('the late bytes', () => readableBytes(target.readFd) === 4);
    relay.close();
  });

  test('any bytes in any pieces come through, with a checkpoint’s look at them at any time', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 20_000 }), { maxLength: 12 }),
        fc.uint8Array({ maxLength: 100_000 }),
        fc.array(fc.integer({ min: 1, max: 30_000 }), { minLength: 1 }),
        async (pieces, first, reads) => {
          const source = pipe();
          const target = pipe();
          open.delete(target.writeFd);
          setNonblocking(source.writeFd);
          const relay = createInputRelay({
            poller: makePoller(),
            sourceFd: source.readFd,
            targetFd: target.writeFd,
            closeTargetAtEnd: true,
            first: Buffer.from(first),
          });
          let all = Buffer.from(first);
          const got: Buffer[] = [];
          const seen = (): number => got.reduce((sum, one) => sum + one.length, 0);
          let turn = 0;
          for (const piece of pieces) {
            const put = tryWrite(source.writeFd, piece, piece.length);
            if (typeof put === 'number') all = Buffer.concat([all, piece.subarray(0, put)]);
            await new Promise((resolve) => setImmediate(resolve));
            // At every moment: what was read, what waits in the pipe, what is pending, what is still outside.
            const waiting = readableBytes(target.readFd) + relay.pending().length + readableBytes(source.readFd);
            expect(seen() + waiting).toBe(all.length);
            got.push(take(target.readFd, reads[turn++ % reads.length]));
          }
          close(source.writeFd);
          await until('all bytes', () => {
            got.push(take(target.readFd));
            return seen() === all.length;
          });
          expect(Buffer.concat(got).equals(all)).toBe(true);
          await until('the end', () => isEnd(target.readFd));
          close(source.readFd);
          close(target.readFd);
        },
      ),
      { numRuns: 25 },
    );
  });
});
