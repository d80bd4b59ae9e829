// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { MAX_COMMAND_LINE_BYTES, readCommandLine } from '../../../src/criu/images/command-line.js';
import { readCpu, readRegisters } from '../../../src/criu/images/cpu.js';
import { MAGIC, readEntries } from '../../../src/criu/images/entries.js';
import { Message } from '../../../src/criu/images/protobuf.js';
import { message } from './protobuf-writer.js';

/** What CRIU 4.2.1 wrote on a machine whose /proc/cpuinfo says: AMD EPYC, family 25, model 17. */
const CPUINFO =
  '1943565413404061620000000a600802101918112001280230fff7afbc0130fff7cffe023000308080c4103083e4e8ff0f30' +
  '0030f38780023000300030ab8ffc8d0f300f30c6bf81023000308580888005300430003000300030103a08414d4420455059' +
  '4340e501488013508013';

describe('the CPU of an image', () => {
  test('is the one that CRIU saw', () => {
    const [entry] = readEntries(Buffer.from(CPUINFO, 'hex'), MAGIC.cpuinfo, 'cpuinfo.img');
    const cpu = readCpu(entry);
    expect(cpu).toMatchObject({ vendor: 'amd', family: 25, model: 17, name: 'AMD EPYC' });
    for (const name of ['sse4_2', 'aes', 'avx', 'avx2', 'bmi2', 'fma', 'avx512f', 'avx512vl', 'gfni', 'sha_ni']) {
      expect(cpu?.features).toContain(name);
    }
    expect(readCpu(new Message(message({ 2: message({ 1: 1 }) }), 'x'))).toBeUndefined();
    expect(readCpu(undefined)).toBeUndefined();
  });

  test('must have the registers that were in use', () => {
    const core = (bits: number): Message =>
      new Message(message({ 2: message({ 3: message({ 13: message({ 1: bits }) }) }) }), 'x');
    expect(readRegisters(core(162))).toEqual(['sse', 'avx512']);
    expect(readRegisters(core(0b111))).toEqual(['x87', 'sse', 'avx']);
    expect(readRegisters(core(0))).toEqual([]);
    expect(readRegisters(new Message(message({ 1: 1 }), 'x'))).toEqual([]);
  });
});

describe('a command line', () => {
  const PAGE = 4096;
  const START = 0x7000;
  const pagemap = (...ranges: (readonly [number, number, number])[]): Message[] =>
    [message({ 1: 3 }), ...ranges.map(([start, pages, flags]) => message({ 1: start, 4: flags, 5: pages }))].map(
      (bytes) => new Message(bytes, 'x'),
    );
  const mm = (start: number, end: number, environmentEnd: number): Message =>
    new Message(message({ 8: start, 9: end, 10: end, 11: environmentEnd }), 'x');
  const reading = async (text: string, argumentBytes: number, map = pagemap([START, 8, 4])) => {
    const pages = Buffer.alloc(9 * PAGE);
    const asked: string[] = [];
    pages.write(text, map[1]?.big(1) === BigInt(START) ? 10 : PAGE + 10);
    const end = START + 10 + argumentBytes;
    const found = await readCommandLine(mm(START + 10, end, end + 100), map, (name, offset, length) => {
      asked.push(name);
      return Promise.resolve(pages.subarray(offset, offset + length));
    });
    expect(new Set(asked).size).toBeLessThanOrEqual(1);
    return found;
  };

  test('is split where the kernel has it so, empty words too', async () => {
    expect(await reading('a\0b c\0\0é\0', 10)).toEqual(['a', 'b c', '', 'é']);
    expect(await reading('\0', 1)).toEqual(['']);
    expect(await reading('', 0)).toEqual([]);
  });

  test('that the process has overwritten is one text, which may run into its environment', async () => {
    expect(await reading('nginx: worker process\0OLD', 8)).toEqual(['nginx: worker process']);
  });

  test('lies behind all pages that were saved before it, and none that were not', async () => {
    const map = pagemap([0x1000, 1, 4], [0x3000, 2, 1], [START, 3, 4]);
    expect(await reading('a\0b\0', 4, map)).toEqual(['a', 'b']);
    expect(await reading('a\0b\0', 4, pagemap([0x1000, 1, 4], [START, 3, 1]))).toBeUndefined();
    expect(await readCommandLine(mm(0, 0, 0), map, () => Promise.reject(new Error('asked')))).toBeUndefined();
  });

  test('of any length costs a bounded number of bytes', async () => {
    const long = 'x'.repeat(MAX_COMMAND_LINE_BYTES + 100);
    expect(await reading(`${long}\0`, long.length + 1)).toEqual([long.slice(0, MAX_COMMAND_LINE_BYTES)]);
  });
});
