// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fstatSync } from 'node:fs';
import { type Step, createRequestReader, existsReply, parseFilename } from '../../../src/criu/protocol.js';
import { closeFd, makePipe, tryWrite } from '../../../src/linux/fds.js';
import { makeSocketPair, sendWithFds } from '../linux/scm.js';
import { openStreams } from '../linux/support.js';
import { requestBytes } from './fake-criu.js';

const pipes: number[] = [];
let criu = -1;
let ours = -1;
beforeEach(() => {
  [criu, ours] = makeSocketPair();
});
afterEach(() => {
  closeFd(criu);
  closeFd(ours);
});

const send = (bytes: Uint8Array): void => void tryWrite(criu, bytes, bytes.length);

/** Any name that CRIU could use, and many that it would not. */
const name = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 300 })
  .filter((text) => !/[/\0]/.test(text) && text !== '.' && text !== '..' && Buffer.from(text).toString() === text);

describe('the request reader', () => {
  test('finds every request and descriptor under any split of the stream', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ name, travels: fc.boolean() }), { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 40 }),
        fc.array(fc.boolean(), { minLength: 1, maxLength: 30 }),
        (files, sizes, readsBetween) => {
          const [client, server] = makeSocketPair();
          const reader = createRequestReader(server);
          const seen: string[] = [];
          const pull = (): Step => {
            for (;;) {
              const step = reader.read();
              if (step.kind === 'again' || step.kind === 'end') return step;
              if (step.kind === 'pipe') {
                seen.push(`pipe ${fstatSync(step.fd).ino}`);
                closeFd(step.fd);
              } else {
                seen.push(`request ${step.filename}`);
                if (files[requests++]?.travels === true) reader.expectPipe();
              }
            }
          };
          let requests = 0;
          let turn = 0;
          const next = <T>(values: readonly T[]): T | undefined => values[turn++ % values.length];
          const wanted: string[] = [];
          for (const file of files) {
            wanted.push(`request ${file.name}`);
            for (let rest = requestBytes(file.name); rest.length > 0;) {
              const length = next(sizes) ?? 1;
              sendWithFds(client, rest.subarray(0, length), []);
              rest = rest.subarray(length);
              if (next(readsBetween) === true) expect(pull().kind).toBe('again');
            }
            if (file.travels) {
              const pipe = makePipe();
              wanted.push(`pipe ${fstatSync(pipe.writeFd).ino}`);
              sendWithFds(client, Buffer.from('\0'), [pipe.writeFd]);
              // The socket keeps it until it is received; the inode number stays taken through the other end.
              closeFd(pipe.writeFd);
              if (next(readsBetween) === true) expect(pull().kind).toBe('again');
              pipes.push(pipe.readFd);
            }
          }
          closeFd(client);
          expect(pull().kind).toBe('end');
          expect(seen).toEqual(wanted);
          closeFd(server);
          pipes.splice(0).forEach((fd) => closeFd(fd));
        },
      ),
      { numRuns: 150 },
    );
  });

  test('has the frame of the reference: a length, and one protobuf field', () => {
    send(Buffer.from('0d0000000a0b637075696e666f2e696d67', 'hex'));
    expect(createRequestReader(ours).read()).toEqual({ kind: 'request', filename: 'cpuinfo.img' });
    expect(existsReply(true).toString('hex')).toBe('020000000801');
    expect(existsReply(false).toString('hex')).toBe('020000000800');
  });

  test('takes a name as long as the protocol allows, and refuses one that is longer before it reads it', () => {
    const longest = 'x'.repeat(10 * 1024 - 3);
    const reader = createRequestReader(ours);
    send(requestBytes(longest));
    expect(reader.read()).toEqual({ kind: 'request', filename: longest });
    send(requestBytes(`${longest}x`));
    expect(() => reader.read()).toThrow(/10241 bytes/);
  });

  test.each([0, 0xffffffff, 0x01000000])('refuses a length of %d', (length) => {
    const head = Buffer.alloc(4);
    head.writeUInt32LE(length);
    send(head);
    expect(() => createRequestReader(ours).read()).toThrow(/no file name needs/);
  });

  test('refuses a byte without the descriptor that it should carry', () => {
    const reader = createRequestReader(ours);
    send(requestBytes('core-1.img'));
    expect(reader.read().kind).toBe('request');
    reader.expectPipe();
    expect(reader.read()).toEqual({ kind: 'again' });
    send(Buffer.from('\0'));
    expect(() => reader.read()).toThrow(/no descriptor/);
  });

  test('closes a descriptor that comes where none belongs', () => {
    const before = openStreams();
    const pipe = makePipe();
    sendWithFds(criu, requestBytes('core-1.img'), [pipe.readFd]);
    closeFd(pipe.readFd);
    expect(createRequestReader(ours).read().kind).toBe('request');
    closeFd(pipe.writeFd);
    expect(openStreams()).toBe(before);
  });

  test.each([
    ['inside a length', requestBytes('core-1.img').subarray(0, 2), false],
    ['inside a request', requestBytes('core-1.img').subarray(0, 9), false],
    ['before the descriptor', requestBytes('core-1.img'), true],
    ['between requests', Buffer.alloc(0), false],
  ])('takes an end %s for one, and makes no request of what came', (_, bytes, expectsPipe) => {
    const reader = createRequestReader(ours);
    send(bytes);
    if (expectsPipe) {
      expect(reader.read().kind).toBe('request');
      reader.expectPipe();
    }
    closeFd(criu);
    criu = -1;
    expect(reader.read()).toEqual({ kind: 'end' });
    expect(reader.read()).toEqual({ kind: 'end' });
  });
});

describe('file names', () => {
  const message = (text: string): Buffer => requestBytes(text).subarray(4);

  test.each(['', '.', '..', '/', 'a/b', '../core-1.img', '/etc/passwd', 'a\0b', '\0'])('%j is refused', (text) => {
    expect(() => parseFilename(message(text))).toThrow(/impossible name/);
  });

  test('any other comes through as it is', () => {
    fc.assert(fc.property(name, (text) => parseFilename(message(text)) === text));
  });

  test('messages of another form are refused, and nothing else is thrown', () => {
    expect(() => parseFilename(Buffer.from([0x12, 1, 0x61]))).toThrow(/field tag 18/);
    expect(() => parseFilename(Buffer.from([0x0a, 5, 0x61]))).toThrow(/does not add up/);
    expect(() => parseFilename(Buffer.from([0x0a, 1, 0x61, 0x61]))).toThrow(/does not add up/);
    expect(() => parseFilename(Buffer.from([0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]))).toThrow(/does not end/);
    expect(() => parseFilename(Buffer.from([]))).toThrow(/does not end/);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        try {
          return !/[/\0]/.test(parseFilename(Buffer.from(bytes)));
        } catch (error) {
          return String(error).includes('CRIU');
        }
      }),
      { numRuns: 500 },
    );
  });
});
