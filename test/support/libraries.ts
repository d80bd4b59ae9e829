// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';

/** Where this machine, or the CRIU that is installed on it, has a library. */
export function libraryPath(soname: string): string {
  const roots = ['', '/opt/fastfreeze/current/root'];
  const found = roots.map((root) => `${root}/usr/lib/x86_64-linux-gnu/${soname}`).find((path) => existsSync(path));
  if (found === undefined) throw new Error(`${soname} is nowhere`);
  return found;
}
