// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from '@jest/globals';
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { ensureRuntime } from '../../../../src/criu/runtime/ensure.js';
import { defaultHome, installHomes } from '../../../../src/criu/runtime/layout.js';
import { makeDirectory } from '../../linux/support.js';

/** A runtime whose CRIU seems to work, and of which nothing else is left. */
function halfDeleted(home: string): void {
  const root = join(home, 'runtime-x/root');
  const libraries = join(root, 'usr/lib/x86_64-linux-gnu');
  for (const folder of [libraries, join(root, 'usr/sbin')]) mkdirSync(folder, { recursive: true });
  writeFileSync(join(root, 'usr/sbin/criu'), '', { mode: 0o755 });
  // It is started by its own loader.
  writeFileSync(join(libraries, 'ld-linux-x86-64.so.2'), "#!/bin/sh\necho 'Version: 4.2.1'\n", { mode: 0o755 });
  symlinkSync('runtime-x', join(home, 'current'));
}

/** What would be found before the stand-ins. */
const systemHasOne = ['/usr/local/sbin/criu', '/usr/sbin/criu', '/sbin/criu'].some(existsSync);

describe('ensureRuntime', () => {
  it.each(['as it is', 'by a link', 'by a link above it'])(
    'does not keep half a runtime in a home named %s',
    async (way) => {
      if (systemHasOne) return;
      const folder = makeDirectory();
      const home = join(folder, 'real/home');
      halfDeleted(home);
      symlinkSync('real/home', join(folder, 'link'));
      symlinkSync('real', join(folder, 'above'));
      const named = { 'as it is': home, 'by a link': join(folder, 'link') }[way] ?? join(folder, 'above/home');
      const steps: string[] = [];
      const ensured = ensureRuntime({
        env: { FF_HOME: named, PATH: '/nonexistent' },
        cacheDirectory: join(folder, 'cache'),
        ...{ privileged: true, force: false, skipCheck: false },
        onStep: (step) => {
          steps.push(step);
          throw new Error('a new one would be made');
        },
      });
      await expect(ensured).rejects.toThrow('a new one would be made');
      expect(steps).toHaveLength(1);
    },
  );
});

describe('a home that FF_HOME names relatively', () => {
  it('is below the folder where we are', () => {
    const folder = makeDirectory();
    const env = { FF_HOME: relative(process.cwd(), folder) };
    expect(env.FF_HOME.startsWith('/')).toBe(false);
    expect([defaultHome(env), ...installHomes(env)]).toEqual([folder, folder]);
  });
});
