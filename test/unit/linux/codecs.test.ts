// SPDX-License-Identifier: Apache-2.0
/* Where codecs are looked for; what they do is in test/unit/image/codecs.test.ts. */
import { describe, expect, test } from '@jest/globals';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { examineCodecs } from '../../../src/criu/runtime/doctor/codecs.js';
import { findLibrary, libraryCandidates } from '../../../src/linux/codecs.js';
import { libraryPath } from '../../support/libraries.js';
import { makeDirectory } from './support.js';

const NAME = 'libxxhash.so.0';
const SYSTEM = '/opt/fastfreeze/current/root/usr/lib/x86_64-linux-gnu';

/** A file of that name in the library folder of a runtime's root. */
function libraryIn(root: string, content = ''): string {
  const folder = join(root, 'usr/lib/x86_64-linux-gnu');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, NAME), content);
  return join(folder, NAME);
}

describe('a library is looked for', () => {
  test('in the installation that FF_HOME names, after the system, and then not in the default ones', () => {
    const home = makeDirectory();
    const installed = libraryIn(join(home, 'current/root'));
    const inUserHome = libraryIn(join(home, '.local/share/fastfreeze/current/root'));
    expect(libraryCandidates(NAME, { FF_HOME: home, HOME: home })).toEqual([NAME, installed]);
    const byDefault = libraryCandidates(NAME, { HOME: home, FF_HOME: '' });
    expect(byDefault.filter((path) => !path.startsWith(SYSTEM))).toEqual([NAME, inUserHome]);
  });

  test.each([
    ['an installation', 'current/root'],
    ['a runtime', 'root'],
    ['its root', ''],
  ])('in %s that FF_CRIU names, before that of FF_HOME', (_, below) => {
    const [chosen, home] = [makeDirectory(), makeDirectory()];
    const ofChosen = libraryIn(join(chosen, below));
    const ofHome = libraryIn(join(home, 'current/root'));
    expect(libraryCandidates(NAME, { FF_CRIU: chosen, FF_HOME: home })).toEqual([NAME, ofChosen, ofHome]);
  });

  test('nowhere else where FF_CRIU is an executable', () => {
    expect(libraryCandidates(NAME, { FF_CRIU: '/bin/true', FF_HOME: makeDirectory() })).toEqual([NAME]);
  });

  test('before all in what FF_LIBRARY_DIR names', () => {
    const env = { FF_LIBRARY_DIR: '/a:/b', FF_HOME: makeDirectory() };
    expect(libraryCandidates(NAME, env)).toEqual([`/a/${NAME}`, `/b/${NAME}`, NAME]);
  });
});

test('a library that does not load is passed over, and doctor names the one that did', () => {
  const home = makeDirectory();
  const broken = libraryIn(makeDirectory(), 'no library');
  const good = libraryIn(join(home, 'current/root'));
  copyFileSync(libraryPath(NAME), good);
  expect(findLibrary(NAME, [broken, good]).path).toBe(good);
  const row = examineCodecs({ FF_LIBRARY_DIR: join(good, '..'), FF_HOME: home });
  expect(row).toMatchObject({
    name: 'codecs',
    status: 'ok',
    detail: expect.stringContaining(join(good, '..')) as unknown,
  });
});
