// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { findCriu } from '../../src/criu/runtime/find.js';

let found: readonly string[] | undefined;

/** The words that start the CRIU that the tests use, as `fastfreeze` itself finds it. */
export async function criuCommand(): Promise<readonly string[]> {
  found ??= (await findCriu({ env: process.env, privileged: true })).command;
  return found;
}

/** `criu --version` works: the runtime is there. */
export async function criuWorks(): Promise<boolean> {
  const [program = '', ...args] = await criuCommand();
  return spawnSync(program, [...args, '--version']).status === 0;
}
