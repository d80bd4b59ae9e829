// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { readProcLink } from '../linux/proc.js';
import type { InspectedProcess } from './exactness.js';

const KINDS = ['user', 'pid', 'net', 'mnt', 'uts', 'ipc', 'cgroup', 'time', 'time_for_children'] as const;

const NAMES: Readonly<Partial<Record<string, string>>> = {
  pid: 'PID',
  net: 'network',
  mnt: 'mount',
  uts: 'UTS',
  ipc: 'IPC',
  time_for_children: 'time',
};

/**
 * Processes of a tree (root first) with other namespaces than its root has. CRIU brings none back; what is more, it saves those
 * of networks and mounts without a word, and then cannot restore the image.
 */
export function findOwnNamespaces(tree: readonly InspectedProcess[]): FastFreezeError[] {
  const [root, ...others] = tree;
  if (root === undefined) return [];
  const common = KINDS.map((kind) => [kind, namespaceOf(root.pid, kind)] as const);
  return others.flatMap((one) => {
    const other = common.find(([kind, link]) => {
      const own = namespaceOf(one.pid, kind);
      return own !== undefined && link !== undefined && own !== link;
    });
    return other === undefined ? [] : [refusal(one, NAMES[other[0]] ?? other[0])];
  });
}

/** Throws the first of `findOwnNamespaces`. */
export function refuseOwnNamespaces(tree: readonly InspectedProcess[]): void {
  const [first] = findOwnNamespaces(tree);
  if (first !== undefined) throw first;
}

function namespaceOf(pid: number, kind: string): string | undefined {
  return readProcLink(`/proc/${pid}/ns/${kind}`);
}

function refusal({ pid, name }: InspectedProcess, kind: string): FastFreezeError {
  return new FastFreezeError({
    code: 'unsupported',
    op: 'freeze process',
    subject: `${pid} (${name})`,
    reason: `it is in a ${kind} namespace of its own, which cannot be brought back`,
    hint: "turn off the program's sandbox or container (browsers: --no-sandbox)",
  });
}
