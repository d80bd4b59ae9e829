// SPDX-License-Identifier: Apache-2.0
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packBundle } from '../../../../src/criu/runtime/bundle.js';
import { sha256OfFile } from '../../../../src/criu/runtime/packages.js';
import { unpackBundle } from '../../../../src/criu/runtime/unpack.js';

let folder = '';
const SET = { format: 1, criuVersion: '4.2.1', suite: 'sid', architecture: 'amd64', packages: [] };

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ff-bundle-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A tiny runtime; its modes and times differ from one to the next. */
function makeRoot(name: string, mode = 0o755): string {
  const root = join(folder, name, 'root');
  mkdirSync(join(root, 'usr/lib'), { recursive: true });
  writeFileSync(join(root, 'packages.json'), JSON.stringify(SET));
  writeFileSync(join(root, 'usr/lib/liba.so.1.0'), 'a');
  symlinkSync('liba.so.1.0', join(root, 'usr/lib/liba.so.1'));
  chmodSync(join(root, 'usr/lib'), mode);
  return root;
}

function tar(name: string, from: string, ...what: string[]): string {
  const file = join(folder, name);
  const made = spawnSync('tar', ['-czPf', file, '-C', from, ...what]);
  expect(made.status).toBe(0);
  return file;
}

describe('a bundle', () => {
  it.each(['tar.gz', 'tar.xz', 'tar.zst'])(
    'as %s is the same for the same files, and comes back whole',
    async (ending) => {
      const first = await packBundle(makeRoot(`one-${ending}`), join(folder, `one.${ending}`));
      const second = await packBundle(makeRoot(`two-${ending}`, 0o700), join(folder, `two.${ending}`));
      expect(second.sha256).toBe(first.sha256);
      expect(await sha256OfFile(first.path)).toBe(first.sha256);
      expect(readFileSync(`${first.path}.sha256`, 'utf8')).toBe(`${first.sha256}  one.${ending}\n`);
      const target = join(folder, `back-${ending}`);
      expect(await unpackBundle(first.path, target)).toEqual(SET);
      expect(readFileSync(join(target, 'root/usr/lib/liba.so.1'), 'utf8')).toBe('a');
      expect(readdirSync(folder).filter((name) => name.startsWith('.'))).toEqual([]);
    },
  );

  it('needs a name that tells the compression', async () => {
    await expect(packBundle(makeRoot('named'), join(folder, 'bundle.zip'))).rejects.toThrow('must end in');
  });

  it.each([
    ['nothing', () => Buffer.alloc(0), 'neither xz'],
    ['text', () => Buffer.from('hello, this is no bundle'), 'neither xz'],
    ['a cut gzip', () => readFileSync(join(folder, 'one.tar.gz')).subarray(0, 100), 'end of file'],
    ['a cut xz', () => readFileSync(join(folder, 'one.tar.xz')).subarray(0, 100), 'cannot unpack'],
  ])('that is %s is refused', async (name, content, message) => {
    const file = join(folder, `bad-${name.replaceAll(' ', '-')}`);
    writeFileSync(file, content());
    await expect(unpackBundle(file, `${file}.out`)).rejects.toThrow(message);
  });

  it('with a second folder is refused', async () => {
    const root = makeRoot('second');
    writeFileSync(join(root, '../more'), '');
    const file = tar('second.tar.gz', join(root, '..'), 'root', 'more');
    await expect(unpackBundle(file, `${file}.out`)).rejects.toThrow('unexpected contents (more)');
  });

  it('with a link that leads outside is refused', async () => {
    const root = makeRoot('link');
    symlinkSync('../../../../etc/passwd', join(root, 'usr/lib/libb.so'));
    const file = tar('link.tar.gz', join(root, '..'), 'root');
    await expect(unpackBundle(file, `${file}.out`)).rejects.toThrow('leads outside');
  });

  it('cannot write outside its folder', async () => {
    const root = makeRoot('climb');
    const aside = join(folder, 'climbed');
    writeFileSync(aside, 'x');
    const file = tar('climb.tar.gz', join(root, 'usr'), '../../../climbed', '../../root');
    rmSync(aside);
    await expect(unpackBundle(file, join(folder, 'a/b/c'))).rejects.toThrow('cannot unpack');
    expect(readdirSync(folder)).not.toContain('climbed');
  });

  it('without a list of packages is refused', async () => {
    const root = makeRoot('bare');
    rmSync(join(root, 'packages.json'));
    const file = tar('bare.tar.gz', join(root, '..'), 'root');
    await expect(unpackBundle(file, `${file}.out`)).rejects.toThrow('cannot unpack the bundle');
  });
});
