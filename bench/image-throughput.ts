// SPDX-License-Identifier: Apache-2.0
// How fast an image is written and read, without CRIU: `node image-throughput.js [GiB] [directory] [codec...]`.
// Half of the pages are noise, half are compressible; no two pages are equal, so nothing is stored only once.
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { CODECS, type Codec } from '../src/image/layout.js';
import { buildManifest } from '../src/image/manifest.js';
import { newPrefix } from '../src/image/names.js';
import { openImage } from '../src/image/reader.js';
import { createImageWriter } from '../src/image/writer.js';
import { openStore } from '../src/store/store.js';

const GIB = 2 ** 30;
const [sizeText = '2', parent = '/dev/shm', ...codecs] = process.argv.slice(2);
const sizeBytes = Number(sizeText) * GIB;
const source = makePages(64 << 20);

for (const codec of codecs.length > 0 ? (codecs as Codec[]) : CODECS) {
  const directory = mkdtempSync(join(parent, 'ff-bench-'));
  try {
    warm(directory, sizeBytes);
    await measure(codec, directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function measure(codec: Codec, directory: string): Promise<void> {
  const store = openStore(directory);
  const writing = meter();
  const image = await createImageWriter({ store, prefix: newPrefix(), numShards: 4, codec });
  const file = image.file('pages-1.img');
  for (let at = 0; at < sizeBytes;) {
    const region = file.reserve();
    if (region === undefined) {
      await image.room();
      continue;
    }
    const length = fill(region, at);
    file.commit(length);
    at += length;
    // A capture loop goes back to its poll between reads.
    if (at % (8 << 20) < length) await new Promise(setImmediate);
  }
  file.end();
  const sealed = await image.finish();
  writing.print(`write ${codec}`, sizeBytes, `stored ${(sealed.storedBytes / sealed.rawBytes).toFixed(2)}`);

  const reading = meter();
  const sink = openSync('/dev/null', 'w');
  const manifest = buildManifest({
    generation: 1,
    state: 'checkpoint',
    createdAt: new Date().toISOString(),
    writer: { version: '0', host: '', kernel: '', criu: '' },
    image: sealed,
  });
  const opened = await openImage({ store, manifest });
  const reader = opened.open('pages-1.img');
  const copy = Buffer.alloc(1 << 20);
  for (let piece = await reader?.next(); piece !== undefined; piece = await reader?.next()) {
    copy.set(piece.bytes); // as a write into CRIU's pipe does
    piece.release();
  }
  opened.close();
  closeSync(sink);
  reading.print(`read  ${codec}`, sizeBytes, '');
}

/** Copy the next pages, each stamped with its number. */
function fill(region: Buffer, at: number): number {
  const from = at % source.length;
  const length = Math.min(region.length, source.length - from, sizeBytes - at);
  source.copy(region, 0, from, from + length);
  for (let page = 0; page + 8 <= length; page += 4096) region.writeUInt32LE((at + page) / 4096, page);
  return length;
}

function makePages(length: number): Buffer {
  const pages = Buffer.alloc(length);
  let state = 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state;
  };
  for (let at = 0; at < length; at += 4) {
    // Every other page is noise; the others are records as heaps hold them: a class, a neighbour, a count, a flag.
    const field = (at / 4) % 8;
    const record = [0x55d0a1c0, 0x7f3c, at & 0x00ffffe0, 0x7f3c, next() & 0xff, 0, at >>> 5, 1][field] ?? 0;
    pages.writeInt32LE((at & 4096) === 0 ? next() : record, at);
  }
  return pages;
}

/** Memory that was never touched is slower the first time: touch as much as the run will need. */
function warm(directory: string, bytes: number): void {
  const path = join(directory, 'warm');
  const fd = openSync(path, 'w');
  const block = Buffer.alloc(1 << 20, 1);
  for (let at = 0; at < bytes; at += block.length) writeSync(fd, block);
  closeSync(fd);
  unlinkSync(path);
}

interface Meter {
  print(what: string, bytes: number, more: string): void;
}

function meter(): Meter {
  const startMs = performance.now();
  const startCpu = process.cpuUsage();
  const startLoop = performance.eventLoopUtilization();
  return {
    print(what, bytes, more) {
      const seconds = (performance.now() - startMs) / 1000;
      const cpu = process.cpuUsage(startCpu);
      const loop = performance.eventLoopUtilization(startLoop).utilization;
      const rate = (bytes / GIB / seconds).toFixed(2);
      const cpuSeconds = `${(cpu.user / 1e6).toFixed(2)}+${(cpu.system / 1e6).toFixed(2)}`;
      const peak = /VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
      const peakMb = (Number(peak) / 1024 - source.length / 2 ** 20).toFixed(0);
      console.log(
        `${what.padEnd(12)} ${rate} GiB/s  ${seconds.toFixed(2)} s  cpu ${cpuSeconds} s  main ${(loop * 100).toFixed(0)}%  peak ${peakMb} MiB  ${more}`,
      );
    },
  };
}
