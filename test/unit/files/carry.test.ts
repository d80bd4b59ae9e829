// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { type Carried, createCarrier } from '../../../src/files/carry.js';
import { CARRIED_DATA, CARRIED_LIST } from '../../../src/files/entry.js';
import { type WantedFile, unpackCarried } from '../../../src/files/unpack.js';
import { newPrefix } from '../../../src/image/names.js';
import { openImage } from '../../../src/image/reader.js';
import { createImageWriter } from '../../../src/image/writer.js';
import { setModifiedTime } from '../../../src/linux/file-data.js';
import { makeDirectory, makeStore, manifestOf, noise, writeImage } from '../image/support.js';

type Unpack = (wanted: readonly WantedFile[]) => Promise<{ directory: string; found: Map<string, string> }>;

/** Put files into an image; the answer unpacks from it, into a new directory. */
async function carry(
  paths: readonly string[],
  known: (path: string) => string | undefined = () => undefined,
): Promise<{ carried: (Carried | undefined)[]; totals: { files: number; dataBytes: number }; unpack: Unpack }> {
  const store = makeStore();
  const writer = await createImageWriter({ store, prefix: newPrefix(), numShards: 2, codec: 'lz4' });
  const carrier = createCarrier(writer, new AbortController().signal);
  const carried: (Carried | undefined)[] = [];
  for (const path of paths) carried.push(await carrier.add(path, () => known(path)));
  const totals = carrier.end();
  const manifest = manifestOf(await writer.finish());
  return { carried, totals, unpack: (wanted) => unpackFrom(openImage({ store, manifest }), wanted) };
}

async function unpackFrom(
  opening: ReturnType<typeof openImage>,
  wanted: readonly WantedFile[],
): Promise<{ directory: string; found: Map<string, string> }> {
  const directory = makeDirectory();
  const image = await opening;
  try {
    return { directory, found: await unpackCarried(image, wanted, directory, () => undefined) };
  } finally {
    image.close();
  }
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function wanted(path: string): WantedFile {
  const { size, mode } = statSync(path);
  return { path, sizeBytes: size, mode: mode & 0o7777, sha256: sha256(readFileSync(path)) };
}

function plant(): { readonly directory: string; readonly paths: readonly string[] } {
  const directory = makeDirectory();
  const paths = ['large', 'empty', 'sparse', 'tool', 'odd\nü'].map((name) => join(directory, name));
  const [large = '', empty = '', sparse = '', tool = '', odd = ''] = paths;
  writeFileSync(large, noise(3_300_001, 7));
  writeFileSync(empty, '');
  const fd = openSync(sparse, 'w');
  writeSync(fd, noise(70_000, 2), 0, 70_000, 5 << 20);
  ftruncateSync(fd, 9 << 20);
  closeSync(fd);
  writeFileSync(tool, '#!/bin/sh\n');
  chmodSync(tool, 0o4755);
  setModifiedTime(Buffer.from(tool), 1_700_000_000_123_456_789n);
  writeFileSync(odd, 'x');
  return { directory, paths };
}

describe('files that are carried', () => {
  test('are hashed on their way, and come out as they were, but never setuid', async () => {
    const { paths } = plant();
    const { carried, totals, unpack } = await carry(paths);
    expect(carried.map((one) => one?.sha256)).toEqual(paths.map((path) => wanted(path).sha256));
    expect(totals.files).toBe(paths.length);
    // Of the sparse file only what is not a hole.
    expect(totals.dataBytes).toBeLessThan(3_300_001 + (1 << 20));

    const { found } = await unpack(paths.map(wanted));
    expect([...found.keys()].sort()).toEqual([...paths].sort());
    for (const [path, copy] of found) {
      expect(readFileSync(copy).equals(readFileSync(path))).toBe(true);
      expect(statSync(copy, { bigint: true }).mtimeNs).toBe(statSync(path, { bigint: true }).mtimeNs);
    }
    const [tool = ''] = [...found].filter(([path]) => path.endsWith('tool')).map(([, copy]) => copy);
    expect(statSync(tool).mode & 0o7777).toBe(0o755);
    const [sparse = ''] = [...found].filter(([path]) => path.endsWith('sparse')).map(([, copy]) => copy);
    expect(statSync(sparse).blocks * 512).toBeLessThan(2 << 20);
  });

  test('are unpacked where they are wanted only, and what the image has not is left out', async () => {
    const { paths, directory } = plant();
    const [large = '', , , tool = ''] = paths;
    const { unpack } = await carry([large, tool]);
    const { found, directory: into } = await unpack([wanted(tool), wanted(join(directory, 'empty'))]);
    expect([...found.keys()]).toEqual([tool]);
    expect(readdirSync(into)).toHaveLength(1);
  });

  test('are not hashed again where their hash is known', async () => {
    const path = join(makeDirectory(), 'file');
    writeFileSync(path, 'hello');
    const known = 'ab'.repeat(32);
    const { carried, unpack } = await carry([path], () => known);
    expect(carried[0]?.sha256).toBe(known);
    // Nor believed: what comes out is hashed, whatever was said of it.
    await expect(unpack([{ ...wanted(path), sha256: known }])).rejects.toMatchObject({ code: 'image', subject: path });
  });

  test('must be regular files that can be read', async () => {
    const directory = makeDirectory();
    mkdirSync(join(directory, 'sub'));
    symlinkSync('nowhere', join(directory, 'dangling'));
    const paths = ['sub', 'dangling', 'none', 'none/below'].map((name) => join(directory, name));
    const { carried, totals } = await carry([...paths, '/dev/null']);
    expect(carried).toEqual([undefined, undefined, undefined, undefined, undefined]);
    expect(totals).toEqual({ files: 0, dataBytes: 0 });
  });

  test('that change meanwhile are no failure for good', async () => {
    const path = join(makeDirectory(), 'file');
    writeFileSync(path, 'hello');
    const adding = carry([path], () => {
      appendFileSync(path, ' and more');
      return undefined;
    });
    await expect(adding).rejects.toMatchObject({ code: 'conflict', subject: path, passing: true });
  });

  const entry = (fields: Record<string, unknown>): string =>
    `${JSON.stringify({ path: '/lib/x', type: 'file', mode: '644', uid: 0, gid: 0, modifiedNs: '0', sizeBytes: 5, data: [[0, 5]], ...fields })}\n`;
  const hello: WantedFile = { path: '/lib/x', sizeBytes: 5, mode: 0o644, sha256: sha256(Buffer.from('hello')) };

  test.each([
    ['other bytes', entry({}), 'jello'],
    ['another size', entry({ sizeBytes: 6 }), 'hello'],
    ['another mode', entry({ mode: '4755' }), 'hello'],
    ['something that is no file', entry({ type: 'directory' }), ''],
    ['a path with detours', entry({ path: '/lib/../etc/x' }), 'hello'],
    ['a file cut short', entry({}), 'hell'],
    ['data of no file', entry({}), 'hello!'],
  ])('that an image tells wrong are refused: %s', async (_, list, data) => {
    const store = makeStore();
    const files = new Map([
      [CARRIED_LIST, Buffer.from(list)],
      [CARRIED_DATA, Buffer.from(data)],
    ]);
    const { manifest } = await writeImage(store, files);
    await expect(unpackFrom(openImage({ store, manifest }), [hello])).rejects.toMatchObject({ code: 'image' });
  });
});
