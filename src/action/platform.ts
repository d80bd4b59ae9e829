// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';

export interface Machine {
  readonly platform: string;
  readonly arch: string;
  /** False for the musl of Alpine, whose job containers have a Node.js of their own. */
  readonly hasGlibc: boolean;
}

/**
 * Why nothing can be frozen here; undefined: it can. To be asked before anything else is loaded: the native library is for Linux on x64 with glibc
 * only, and what loads it elsewhere ends with a stack trace.
 */
export function platformProblem(machine = thisMachine()): FastFreezeError | undefined {
  const { platform, arch, hasGlibc } = machine;
  if (platform === 'linux' && arch === 'x64' && hasGlibc) return undefined;
  const isMusl = platform === 'linux' && arch === 'x64';
  return new FastFreezeError({
    code: 'host',
    op: 'run on',
    subject: isMusl ? 'linux-x64 without glibc' : `${platform}-${arch}`,
    reason: isMusl ? 'only programs of glibc can be frozen, and Alpine has musl' : 'only Linux on x64 can be frozen',
    hint: isMusl ? 'a job container of Debian or Ubuntu' : 'runs-on: ubuntu-24.04',
  });
}

function thisMachine(): Machine {
  const { platform, arch, report } = process;
  // Else it looks up the names of all that we are connected to.
  Object.assign(report, { excludeNetwork: true });
  const { header } = report.getReport() as { readonly header: { readonly glibcVersionRuntime?: string } };
  return { platform, arch, hasGlibc: header.glibcVersionRuntime !== undefined };
}
