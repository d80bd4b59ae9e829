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
    const other = common.find(([kind, link]) => differ(namespaceOf(one.pid, kind), link));
    return other === undefined ? [] : [refusal(one, other[0])];
  });
}

/**
 * Throws the first of `findOwnNamespaces`, and also where the root itself has left the namespaces that we started it in. Those
 * of users, PIDs, clocks and cgroups are not compared with ours; its IPC namespace is another one than ours, and is saved.
 */
export function refuseOwnNamespaces(tree: readonly InspectedProcess[]): void {
  const [root] = tree;
  const left = root && OURS.find((kind) => differ(namespaceOf(root.pid, kind), namespaceOf('self', kind)));
  if (root !== undefined && left !== undefined) throw refusal(root, left);
  const [first] = findOwnNamespaces(tree);
  if (first !== undefined) throw first;
}

const OURS = ['net', 'mnt', 'uts'] as const;

/** What may not be looked at is not compared. */
function differ(one: string | undefined, other: string | undefined): boolean {
  return one !== undefined && other !== undefined && one !== other;
}

function namespaceOf(pid: number | 'self', kind: string): string | undefined {
  return readProcLink(`/proc/${pid}/ns/${kind}`);
}

function refusal({ pid, name }: InspectedProcess, kind: string): FastFreezeError {
  return new FastFreezeError({
    code: 'unsupported',
    op: 'freeze process',
    subject: `${pid} (${name})`,
    reason: `it is in a ${NAMES[kind] ?? kind} namespace of its own, which cannot be brought back`,
    hint: "turn off the program's sandbox or container (browsers: --no-sandbox)",
  });
}
