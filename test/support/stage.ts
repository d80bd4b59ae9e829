// SPDX-License-Identifier: Apache-2.0
import { join } from 'node:path';

/** Where the global set-up put what a normal user runs; see global-setup.ts. */
function staged(): string {
  const dir = process.env['FF_TEST_STAGE'];
  if (dir === undefined) throw new Error('FF_TEST_STAGE is not set: run the tests with scripts/test.sh');
  return dir;
}

/** The `fastfreeze` command, as the tests run it; FF_NODE tells it which Node.js to use. */
export const fastfreeze = (): readonly string[] => [join(staged(), 'package/bin/fastfreeze')];

/** The daemon under its own name. */
export const ffDaemon = (): readonly string[] => [join(staged(), 'package/bin/ff_daemon')];

/** The staged directory of `lib/`, `bin/` and what they need. */
export const packageDir = (): string => join(staged(), 'package');

/** Node.js itself, at a path that every user can run. */
export const nodePath = (): string => join(staged(), 'node');

/** A fixture program. */
export const fixture = (name: string): string => join(staged(), 'fixtures', name);

/** Where the tests put their own directories: everyone may enter it. */
export const scratchDir = (): string => join(staged(), 's');

/** One home directory per identity for all tests: what is remembered about the machine's CRIU lies there. */
export const homeOf = (identity: 'root' | 'user'): string => join(staged(), `home-${identity}`);

/** The system's Python: one under a home directory could not be read by the normal user. */
export const PYTHON = '/usr/bin/python3';
