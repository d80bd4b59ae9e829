// SPDX-License-Identifier: Apache-2.0
import { chmodSync, mkdirSync, readdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { bindFiles, findPlace } from '../../../src/container/file-binds.js';
import { makeDirectory } from '../image/support.js';

function plant(): string {
  const base = realpathSync(makeDirectory());
  mkdirSync(join(base, 'usr', 'lib'), { recursive: true });
  symlinkSync('usr/lib', join(base, 'lib'));
  writeFileSync(join(base, 'usr', 'lib', 'there'), 'x');
  symlinkSync('there', join(base, 'usr', 'lib', 'link'));
  return base;
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
  const bind = (paths: readonly string[], kept: readonly string[] = []): unknown => {
    const binds = paths.map((path) => ({ path, source: '/nowhere/source' }));
    try {
      return bindFiles(binds, { workDirectory: '/nowhere', kept, privileged: true });
    } catch (error) {
      return error;
    }
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

  test.each(['/proc/1/x', '/sys/x', '/dev/x'])('%s, which is the kernel’s', (path) => {
    expect(bind([path])).toMatchObject({ code: 'conflict', subject: path });
  });
});
