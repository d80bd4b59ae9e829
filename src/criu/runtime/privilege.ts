// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';

const CAP_SYS_ADMIN = 21n;
/** The map of the machine's own user namespace: every ID is itself. */
const IDENTITY_MAP = /^\s*0\s+0\s+4294967295\s*$/;

/**
 * Root with its rights. Root of a container that was stripped of them, or of a user namespace, is to the
 * kernel a normal user and is treated like one.
 */
export function isPrivileged(): boolean {
  if (process.geteuid?.() !== 0) return false;
  if (isInUserNamespace()) return false;
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 1n;
}

/** In a user namespace IDs are not the machine's: root's files look like nobody's. */
export function isInUserNamespace(): boolean {
  return !IDENTITY_MAP.test(readFileSync('/proc/self/uid_map', 'utf8'));
}
