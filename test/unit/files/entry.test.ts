// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { FastFreezeError } from '../../../src/base/errors.js';
import {
  FILES_DATA,
  FILES_LIST,
  type FileEntry,
  formatEntry,
  parseEntry,
  toBytePath,
} from '../../../src/files/entry.js';
import { joinRoots, preservedRoots, wrongRoot } from '../../../src/files/roots.js';
import { stageFiles } from '../../../src/files/stage.js';
import { openImage } from '../../../src/image/reader.js';
import { makeDirectory, makeStore, writeImage } from '../image/support.js';

const attributes = { mode: 0o644, uid: 1, gid: 2, modifiedNs: 5n, xattrs: new Map<string, Buffer>() };

describe('the list of preserved files', () => {
  const name = fc
    .uint8Array({ minLength: 1, maxLength: 12 })
    .map((bytes) => toBytePath(Buffer.from(bytes.filter((byte) => byte !== 0 && byte !== 47))))
    .filter((one) => one !== '' && one !== '.' && one !== '..');
  const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => `/${names.join('/')}`);

  test('gives back names of any bytes', () => {
    fc.assert(
      fc.property(path, path, fc.bigInt(-(10n ** 18n), 10n ** 18n), (one, target, modifiedNs) => {
        const entries: FileEntry[] = [
          { path: one, type: 'symlink', target, ...attributes, modifiedNs },
          { path: one, type: 'hardlink', target },
          { path: one, type: 'file', ...attributes, sizeBytes: 10, data: [[3, 4]] },
        ];
        for (const entry of entries) expect(parseEntry(formatEntry(entry).trimEnd())).toEqual(entry);
      }),
    );
  });

  test('that says nonsense is refused, whatever it is', () => {
    const good = JSON.parse(
      formatEntry({ path: '/a', type: 'file', ...attributes, sizeBytes: 9, data: [[0, 9]] }),
    ) as object;
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(good)), fc.jsonValue(), (key, value) => {
        try {
          parseEntry(JSON.stringify({ ...good, [key]: value }));
        } catch (error) {
          expect(error).toBeInstanceOf(FastFreezeError);
        }
      }),
      { numRuns: 500 },
    );
    for (const text of ['', '{', '[]', '{"path":"/a"}', '{"path":"/a","type":"device"}']) {
      expect(() => parseEntry(text)).toThrow(FastFreezeError);
    }
    for (const wrong of ['a', '/a/../b', '/a//b', '/', '/./a', '/a/', '/a\0b']) {
      expect(() => parseEntry(JSON.stringify({ path: wrong, type: 'absent' }))).toThrow(/path/);
    }
  });
});

describe('an image that wants to write elsewhere', () => {
  async function restoring(base: string, entries: readonly FileEntry[]): Promise<void> {
    const store = makeStore();
    const files = new Map([
      [FILES_LIST, Buffer.from(entries.map(formatEntry).join(''))],
      [FILES_DATA, Buffer.from('evil')],
    ]);
    const { manifest } = await writeImage(store, files);
    const image = await openImage({ store, manifest });
    try {
      const options = { image, roots: [join(base, 'data')], except: [], preserveSetuid: false, warn: () => undefined };
      await (await stageFiles(options, () => undefined)).apply();
    } finally {
      image.close();
    }
  }

  test.each([
    'through a link of its own',
    'through a link that is there',
    'by name',
    'without its directory',
    'by a hard link',
    'by a hard link through a link',
    'by names of ours',
    'by naming a directory again, as a link',
  ])('is refused: %s', async (how) => {
    const base = makeDirectory();
    const [data, outside] = [join(base, 'data'), join(base, 'outside')];
    mkdirSync(outside);
    const directory: FileEntry = { path: data, type: 'directory', ...attributes, mode: 0o755 };
    const evil = (path: string): FileEntry => ({ path, type: 'file', ...attributes, sizeBytes: 4, data: [[0, 4]] });
    const entries: Record<string, () => FileEntry[]> = {
      'through a link of its own': () => [
        directory,
        { path: `${data}/x`, type: 'symlink', target: outside, ...attributes },
        evil(`${data}/x/file`),
      ],
      'through a link that is there': () => {
        mkdirSync(data);
        symlinkSync(outside, `${data}/x`);
        return [directory, evil(`${data}/x/file`)];
      },
      'by name': () => [directory, evil(`${outside}/file`)],
      'without its directory': () => [directory, evil(`${data}/y/file`)],
      'by a hard link': () => [
        directory,
        evil(`${data}/f`),
        { path: `${data}/z`, type: 'hardlink', target: '/etc/passwd' },
      ],
      'by a hard link through a link': () => [
        directory,
        evil(`${data}/f`),
        { path: `${data}/x`, type: 'symlink', target: outside, ...attributes },
        { path: `${data}/y`, type: 'hardlink', target: `${data}/x/secret` },
      ],
      'by names of ours': () => [
        directory,
        { path: `${data}/.fastfreeze-set-aside`, type: 'symlink', target: outside, ...attributes },
        evil(`${data}/f`),
      ],
      'by naming a directory again, as a link': () => [
        directory,
        evil(`${data}/f`),
        { ...directory, path: `${data}/x` },
        { path: `${data}/x`, type: 'symlink', target: outside, ...attributes },
      ],
    };
    writeFileSync(join(outside, 'secret'), 'not yours');
    await expect(restoring(base, entries[how]?.() ?? [])).rejects.toMatchObject({
      code: 'image',
      reason: expect.stringMatching(/outside of the preserved paths|what no image of ours would say/),
    });
    expect(readdirSync(outside)).toEqual(['secret']);
    expect(statSync(join(outside, 'secret')).nlink).toBe(1);
    // Only where a link leads to is not known before it is there.
    const isThere = how === 'through a link that is there' || how === 'by a hard link through a link';
    expect(readdirSync(base).sort()).toEqual(isThere ? ['data', 'outside'] : ['outside']);
  });

  test('a directory of the image takes the place of a link, not of what it leads to', async () => {
    const base = makeDirectory();
    const [data, outside] = [join(base, 'data'), join(base, 'outside')];
    mkdirSync(outside);
    mkdirSync(data);
    symlinkSync(outside, `${data}/x`);
    const directory = { type: 'directory', ...attributes, mode: 0o755 } as const;
    await restoring(base, [
      { path: data, ...directory },
      { path: `${data}/x`, ...directory },
      { path: `${data}/x/file`, type: 'file', ...attributes, sizeBytes: 4, data: [[0, 4]] },
    ]);
    expect(readdirSync(outside)).toEqual([]);
    expect(readdirSync(`${data}/x`)).toEqual(['file']);
  });
});

describe('paths to preserve', () => {
  test('are split at colons, made absolute, and none lies below another', () => {
    expect(preservedRoots(['a:/b/', '/b/c', '/bc:'], '/home/ann')).toEqual(['/b', '/bc', '/home/ann/a']);
    expect(joinRoots(['/x/y', '/x', '/x'])).toEqual(['/x']);
  });

  test('are not the machine itself', () => {
    for (const path of ['/', '/proc', '/proc/self', '/sys', '/dev', '/dev/sda']) expect(wrongRoot(path)).toBeDefined();
    for (const path of ['/dev/shm', '/dev/shm/x', '/devel', '/home/me']) expect(wrongRoot(path)).toBeUndefined();
  });
});
