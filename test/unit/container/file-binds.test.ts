// SPDX-License-Identifier: Apache-2.0
import { chmodSync, mkdirSync, readdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { bindFiles, findPlace, refuseBinds } from '../../../src/container/file-binds.js';
import { makeDirectory } from '../image/support.js';
import { askScript, moduleUrl, ownPids } from '../linux/support.js';

function plant(): string {
  const base = realpathSync(makeDirectory());
  mkdirSync(join(base, 'usr', 'lib'), { recursive: true });
  symlinkSync('usr/lib', join(base, 'lib'));
  writeFileSync(join(base, 'usr', 'lib', 'there'), 'x');
  symlinkSync('there', join(base, 'usr', 'lib', 'link'));
  return base;
}

function caught(act: () => unknown): unknown {
  try {
    return act();
  } catch (error) {
    return error;
  }
}

describe('the place of a file on another machine', () => {
  const base = plant();
  test.each([
    ['usr/lib/there', 'usr/lib', ['there'], true],
    ['lib/there', 'usr/lib', ['there'], true],
    // Over the link's end others would see it.
    ['usr/lib/link', 'usr/lib', ['link'], false],
    ['usr/lib', 'usr', ['lib'], false],
    ['lib/none', 'usr/lib', ['none'], false],
    ['opt/app/lib/none', '.', ['opt', 'app', 'lib', 'none'], false],
    ['usr/lib/there/below', 'usr/lib', ['there', 'below'], false],
  ])('%s', (path, directory, rest, isThere) => {
    const place = findPlace(join(base, path));
    expect(place).toEqual({
      path: join(base, path),
      directory: join(base, directory),
      rest,
      target: join(base, directory, ...rest),
      isThere,
    });
  });
});

describe('a file that cannot be shown at its place is named, and nothing is mounted', () => {
  /** What is said before other files are brought back is what the mounts would say. */
  const bind = (paths: readonly string[], kept: readonly string[] = [], allowInexact = true): unknown => {
    const binds = paths.map((path) => ({ path, source: '/nowhere/source' }));
    const options = { workDirectory: '/nowhere', kept, privileged: true, allowInexact };
    const [early, late] = [refuseBinds, bindFiles].map((act) => caught(() => act(binds, options, [])));
    expect(early).toEqual(late);
    return late;
  };

  test('two names of one place', () => {
    const base = plant();
    const [one, other] = [join(base, 'lib', 'there'), join(base, 'usr', 'lib', 'there')];
    const refused = { code: 'conflict', subject: other, reason: expect.stringContaining(one) };
    expect(bind([one, other])).toMatchObject(refused);
    expect(bind([other], [one])).toMatchObject(refused);
  });

  test('a directory that is missing in /', () => {
    const path = '/no-such-directory-here/lib/x';
    expect(bind([path])).toMatchObject({
      code: 'conflict',
      subject: path,
      reason: expect.stringContaining('there is no /no-such-directory-here'),
      hint: expect.stringContaining(`mkdir -p '/no-such-directory-here/lib'`),
    });
  });

  test('a place that the application may write to, or anybody', () => {
    const base = plant();
    chmodSync(base, 0o1777);
    const before = readdirSync(base);
    expect(bind([join(base, 'none')])).toMatchObject({ code: 'conflict', reason: expect.stringContaining(base) });
    expect(readdirSync(base)).toEqual(before);
  });

  test('a directory of root’s, in which root’s application could make nothing any more', () => {
    const base = plant();
    const path = join(base, 'usr', 'lib', 'none');
    expect(bind([path], [], false)).toMatchObject({
      code: 'conflict',
      subject: path,
      reason: expect.stringContaining(`root may write to ${join(base, 'usr', 'lib')}`),
      hint: expect.stringMatching(/touch '.*none'; .*--allow-inexact/),
    });
  });

  test('but not yet for a directory that comes with other files', () => {
    const path = '/no-such-directory-here/lib/x';
    const early = (coming: readonly string[]): unknown =>
      caught(() =>
        refuseBinds(
          [{ path, source: '/nowhere/source' }],
          { workDirectory: '/nowhere', kept: [], privileged: true, allowInexact: false },
          coming,
        ),
      );
    expect(early(['/no-such-directory-here/data'])).toBeUndefined();
    expect(early(['/no-such-directory-anywhere'])).toMatchObject({ code: 'conflict', subject: path });
  });

  test.each(['/proc/1/x', '/sys/x', '/dev/x'])('%s, which is the kernel’s', (path) => {
    expect(bind([path])).toMatchObject({ code: 'conflict', subject: path });
  });
});

describe('where making a stand-in fails half way', () => {
  test('nothing of the machine stays mounted in our directory, and removing that removes nothing else', async () => {
    const base = plant();
    const work = join(base, 'work');
    mkdirSync(join(work, 'carried'), { recursive: true });
    // The one path wants a file where the other wants a directory, once all that is there is mounted in the stand-in.
    const script = `
      import { readFileSync, existsSync, readdirSync } from 'node:fs';
      import { bindFiles } from '${moduleUrl('container/file-binds.js')}';
      import { removeTemporaryDirectory } from '${moduleUrl('container/temporary.js')}';
      import { bindTree } from '${moduleUrl('linux/mount.js')}';
      const [path, work, data] = ${JSON.stringify([join(base, 'usr', 'none', 'below'), work, join(base, 'usr', 'lib')])};
      const options = { workDirectory: work + '/carried', kept: [], privileged: true, allowInexact: true };
      const mounts = () => readFileSync('/proc/self/mountinfo', 'utf8').split('\\n').filter((line) => line.includes(work)).length;
      let code = '';
      try { bindFiles([{ path, source: '/nowhere' }, { path: path + '/file', source: '/nowhere' }], options); } catch (error) { code = error.code; }
      const left = mounts();
      bindTree(data, work + '/carried');
      const bound = mounts();
      const stays = removeTemporaryDirectory(work);
      console.log(JSON.stringify([code, left, bound, stays ?? null, existsSync(work), readdirSync(data)]));`;
    expect(await askScript(script, ownPids())).toEqual(['conflict', 0, 1, null, false, ['link', 'there']]);
  });
});
