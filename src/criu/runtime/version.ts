// SPDX-License-Identifier: Apache-2.0

/** Older ones fail on the kernels this tool runs on (vDSO layout, 6.13 and later). */
export const OLDEST_VERSION = '4.1.1';
/** The first one that dumps sockets on kernels that refuse the socket option 1:16. */
export const WANTED_VERSION = '4.2.1';

/** The version in the text of `criu --version`, or undefined when there is none. */
export function parseCriuVersion(text: string): string | undefined {
  return /^Version:\s*v?(\d+(?:\.\d+)*)/m.exec(text)?.[1];
}

/** The upstream version in a Debian one: `2:4.2.1-1+b2` is `4.2.1`. */
export function upstreamVersion(debianVersion: string): string {
  return /^(?:\d+:)?(\d+(?:\.\d+)*)/.exec(debianVersion)?.[1] ?? debianVersion;
}

/** Negative, zero or positive, as `Array.sort` wants it; a missing part counts as 0. */
export function compareVersions(left: string, right: string): number {
  const a = left.split('.').map(Number);
  const b = right.split('.').map(Number);
  for (let index = 0; index < Math.max(a.length, b.length); index++) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

export function isTooOld(version: string): boolean {
  return compareVersions(version, OLDEST_VERSION) < 0;
}

/** What a user of this version has to know, when there is something. */
export function versionWarning(version: string): string | undefined {
  if (compareVersions(version, WANTED_VERSION) >= 0) return undefined;
  return `CRIU ${version} cannot dump TCP and UDP sockets on new kernels; ${WANTED_VERSION} or later can`;
}
