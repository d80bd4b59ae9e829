// SPDX-License-Identifier: Apache-2.0
import { isIPv4, isIPv6 } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FastFreezeError } from '../../../src/base/errors.js';
import { inetAddress } from '../../../src/criu/images/addresses.js';
import { MAGIC } from '../../../src/criu/images/entries.js';
import { MEMORY_KINDS, readMemory } from '../../../src/criu/images/memory.js';
import { readProcesses } from '../../../src/criu/images/processes.js';
import { Message } from '../../../src/criu/images/protobuf.js';
import { imageFile, message } from './protobuf-writer.js';

const PAGE = 4096;
const [ANON_PRIVATE, ANON_SHARED, FILE_PRIVATE, VSYSCALL] = [1 << 9, 1 << 8, 1 << 6, 1 << 2];
const [FILE_SHARED, MEMFD] = [1 << 7, 1 << 14];

const vma = (start: number | bigint, end: number | bigint, status: number): Buffer =>
  message({ 1: start, 2: end, 3: 0, 4: 0, 5: 3, 6: 2, 7: status | 1, 8: 0 });
/** As CRIU 4 writes it: the old field is there and means nothing. */
const saved = (start: number, pages: number, flags = 4): Buffer => message({ 1: start, 2: 0, 4: flags, 5: pages });
const head = message({ 1: 1 });
const parse = (parts: readonly Buffer[]): Message[] => parts.map((part) => new Message(part, 'x'));

describe('memory', () => {
  test('is told by kind, mapped and saved, and what was not saved is not counted', () => {
    const mm = new Message(
      message({
        12: 5,
        14: [
          vma(0x10000, 0x20000, ANON_PRIVATE),
          vma(0x20000, 0x24000, FILE_PRIVATE),
          vma(0x30000, 0x38000, ANON_SHARED),
          // As CRIU with the machine's rights sees the same.
          vma(0x38000, 0x40000, FILE_SHARED | MEMFD),
          vma(0xffffffffff600000n, 0xffffffffff601000n, VSYSCALL),
        ],
      }),
      'x',
    );
    const pagemap = [head, saved(0x1f000, 3), saved(0x12000, 2, 1), message({ 1: 0x10000, 2: 2 }), saved(0x30000, 0)];
    expect(readMemory(mm, parse(pagemap))).toEqual({
      private: { mappedBytes: 0x10000, savedBytes: 3 * PAGE },
      filePrivate: { mappedBytes: 0x4000, savedBytes: 2 * PAGE },
      shared: { mappedBytes: 0x10000, savedBytes: 0 },
      fileShared: { mappedBytes: 0, savedBytes: 0 },
      other: { mappedBytes: 0, savedBytes: 0 },
    });
  });

  test('adds up, whatever the mappings and the pages', () => {
    const page = fc.nat(200);
    const mappings = fc.uniqueArray(page, { minLength: 0, maxLength: 12 }).map((pages) => pages.sort((a, b) => a - b));
    const ranges = fc.array(fc.tuple(page, fc.nat(30)), { maxLength: 10 });
    const status = fc.constantFrom(ANON_PRIVATE, ANON_SHARED, FILE_PRIVATE, 1 << 7, 0);
    fc.assert(
      fc.property(mappings, ranges, fc.array(status, { minLength: 12, maxLength: 12 }), (edges, parts, kinds) => {
        const vmas: Buffer[] = [];
        let mapped = 0;
        for (let i = 0; i + 1 < edges.length; i += 2) {
          const [start, end] = [edges[i] ?? 0, edges[i + 1] ?? 0];
          mapped += (end - start) * PAGE;
          vmas.push(vma(start * PAGE, end * PAGE, kinds[i] ?? 0));
        }
        const pagemap = parse([head, ...parts.map(([start, pages]) => saved(start * PAGE, pages))]);
        const memory = readMemory(new Message(message({ 14: vmas }), 'x'), pagemap);
        const sum = (field: 'mappedBytes' | 'savedBytes'): number =>
          MEMORY_KINDS.reduce((total, kind) => total + memory[kind][field], 0);
        expect(sum('mappedBytes')).toBe(mapped);
        expect(sum('savedBytes')).toBe(parts.reduce((total, [, pages]) => total + pages * PAGE, 0));
      }),
    );
  });
});

describe('an address', () => {
  test.each([
    [2, [0x0100007f], 80, '127.0.0.1:80'],
    [2, [0], 0, '0.0.0.0:0'],
    [10, [0, 0, 0, 0x01000000], 443, '[::1]:443'],
    [10, [0, 0, 0, 0], 1, '[::]:1'],
    [10, [0xb80d0120, 0, 0x01000000, 0x01000000], 1, '[2001:db8::1:0:1]:1'],
    [10, [], 1, '[::]:1'],
  ])('of family %d is written as usual', (family, words, port, expected) => {
    expect(inetAddress(family, words, port)).toBe(expected);
  });

  test('is always one', () => {
    const words = fc.array(fc.oneof(fc.constant(0), fc.nat(0xffffffff)), { minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(words, fc.nat(65535), (address, port) => {
        expect(isIPv4(inetAddress(2, address, port).replace(/:\d+$/, ''))).toBe(true);
        expect(isIPv6(inetAddress(10, address, port).replace(/^\[|\]:\d+$/g, ''))).toBe(true);
      }),
    );
  });
});

/** Of three pages; the arguments lie over the border of the last two. */
const PAGES = Buffer.alloc(3 * PAGE);
PAGES.write('app\0--size\0HOME=/', 2 * PAGE - 6);

/** Two processes: 1000 with files and memory, and a zombie, its child. */
function image(): Map<string, Buffer> {
  const regular = (id: number, name: string, flags: number, mode = 0o100644): Buffer =>
    message({ 1: 1, 2: id, 3: message({ 1: id, 2: flags, 3: 17, 6: name, 8: 99, 10: mode }) });
  const inet = (id: number, proto: number, state: number, remotePort: number): Buffer =>
    message({
      1: 4,
      2: id,
      4: message({ 1: id, 2: 9, 3: 2, 4: 1, 5: proto, 6: state, 7: 8080, 8: remotePort, 11: [0x0100007f], 12: [0] }),
    });
  const unix = message({ 1: 5, 2: 6, 16: message({ 1: 6, 11: Buffer.from('\0abstract') }) });
  const fd = (number: number, id: number, type: number): Buffer => message({ 1: id, 2: 0, 3: type, 4: number });
  const core = (state: number, name: string, files: number | undefined): Buffer =>
    message({
      1: 1,
      3: message({ 1: state, 6: name }),
      4: files === undefined ? undefined : message({ 1: 1, 2: files }),
    });
  return new Map([
    [
      'pstree.img',
      imageFile(MAGIC.pstree, [
        message({ 1: 1000, 2: 0, 3: 1000, 4: 1000, 5: [1000, 1002] }),
        message({ 1: 1001, 2: 1000, 3: 1000, 4: 1000, 5: [1001] }),
      ]),
    ],
    [
      'files.img',
      imageFile(MAGIC.files, [
        regular(1, '/usr/bin/app', 0),
        regular(2, '/var/log/app', 0o2001),
        regular(3, '/srv', 0, 0o040755),
        inet(4, 6, 10, 0),
        inet(5, 17, 7, 53),
        unix,
      ]),
    ],
    ['core-1000.img', imageFile(MAGIC.core, [core(1, 'app', undefined)])],
    ['ids-1000.img', imageFile(MAGIC.ids, [message({ 1: 1, 2: 7 })])],
    [
      'mm-1000.img',
      imageFile(MAGIC.mm, [
        message({ 8: 0x11ffa, 9: 0x12005, 11: 0x12010, 12: 1, 14: [vma(0x10000, 0x20000, ANON_PRIVATE)] }),
      ]),
    ],
    ['pages-1.img', PAGES],
    ['pagemap-1000.img', imageFile(MAGIC.pagemap, [head, saved(0x10000, 1), saved(0x11000, 2)])],
    [
      'fdinfo-7.img',
      imageFile(MAGIC.fdinfo, [fd(4, 2, 1), fd(3, 4, 4), fd(5, 5, 4), fd(6, 6, 5), fd(7, 3, 1), fd(8, 99, 2)]),
    ],
    ['core-1001.img', imageFile(MAGIC.core, [core(2, 'gone', 7)])],
    ['pagemap-shmem-12.img', imageFile(MAGIC.pagemap, [head, saved(0, 5)])],
  ]);
}

const readRange =
  (files: ReadonlyMap<string, Buffer>) =>
  (name: string, offset: number, length: number): Promise<Buffer> => {
    const bytes = files.get(name)?.subarray(offset, offset + length);
    if (bytes?.length === length) return Promise.resolve(bytes);
    return Promise.reject(new FastFreezeError({ code: 'image', op: 'read', subject: name, reason: 'not there' }));
  };

const readAll = (files: ReadonlyMap<string, Buffer>): ReturnType<typeof readProcesses> =>
  readProcesses((name) => Promise.resolve(files.get(name)), files.keys(), readRange(files));

describe('processes', () => {
  test('have their names, executables, memory, files and sockets', async () => {
    const { processes, sharedSavedBytes, notes } = await readAll(image());
    expect(notes).toEqual([]);
    expect(sharedSavedBytes).toBe(5 * PAGE);
    const [app, zombie] = processes;
    expect(app).toMatchObject({ pid: 1000, parentPid: 0, threads: 2, name: 'app', state: 'alive' });
    expect(app?.executable).toBe('/usr/bin/app');
    expect(app?.memory?.private).toEqual({ mappedBytes: 0x10000, savedBytes: 3 * PAGE });
    expect(app?.commandLine).toEqual(['app', '--size']);
    expect(app?.files).toEqual([
      { fd: 3, kind: 'tcp', local: '127.0.0.1:8080', state: 'listen' },
      { fd: 4, kind: 'file', path: '/var/log/app', access: 'write', append: true, positionBytes: 17, sizeBytes: 99 },
      { fd: 5, kind: 'udp', local: '127.0.0.1:8080', remote: '0.0.0.0:53' },
      { fd: 6, kind: 'unix', path: '@abstract' },
      { fd: 7, kind: 'directory', path: '/srv', access: 'read', append: false },
      { fd: 8, kind: 'pipe' },
    ]);
    expect(zombie).toMatchObject({ pid: 1001, parentPid: 1000, name: 'gone', state: 'dead', memory: null, files: [] });
  });

  test('are shown as far as they can be when files are missing or damaged, and it is said which', async () => {
    for (const name of image().keys()) {
      for (const broken of [undefined, Buffer.from('nonsense, and more of it'), image().get(name)?.subarray(0, -1)]) {
        // Its last byte is no part of a command line.
        if (name === 'pages-1.img' && broken?.length === PAGES.length - 1) continue;
        const files = image();
        if (broken === undefined) files.delete(name);
        else files.set(name, broken);
        const { processes, notes } = await readAll(files);
        const optional = broken === undefined && /^(pagemap|ids)-/.test(name);
        expect([name, notes.length > 0]).toEqual([name, !optional]);
        if (!optional) expect(notes.join()).toContain(name);
        if (name !== 'pstree.img') expect(processes.map(({ pid }) => pid)).toEqual([1000, 1001]);
      }
    }
  });

  test('of any bytes never throw', async () => {
    const names = [...image().keys()];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...names),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        async (name, at, flip) => {
          const files = image();
          const bytes = Buffer.from(files.get(name) ?? []);
          bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ flip;
          await readAll(files.set(name, bytes));
        },
      ),
      { numRuns: 500 },
    );
  });

  test('in a fault of the store are not silently left out', async () => {
    const fail = (): Promise<never> => Promise.reject(new Error('store'));
    await expect(readProcesses(fail, [], fail)).rejects.toThrow('store');
    const files = image();
    const read = readProcesses((name) => Promise.resolve(files.get(name)), files.keys(), fail);
    await expect(read).rejects.toThrow('store');
  });
});
