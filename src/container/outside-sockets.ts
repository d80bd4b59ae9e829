// SPDX-License-Identifier: Apache-2.0
import { listProc, readProcLink } from '../linux/proc.js';
import { unixPeers } from '../linux/unix-diag.js';
import type { TreeProcess } from './tree.js';

/** A UNIX socket of the application's whose other end a process outside of the tree has. */
export interface OutsideSocket {
  readonly process: TreeProcess;
  readonly fd: number;
  readonly inode: number;
  /** The inode of the other end. */
  readonly peer: number;
}

/**
 * The UNIX sockets of a tree that lead out of it, each once. The tree may run: what it connects next is not among them. None
 * where the kernel does not tell.
 */
export function findOutsideSockets(tree: readonly TreeProcess[]): OutsideSocket[] {
  const own = new Map<number, { readonly process: TreeProcess; readonly fd: number }>();
  for (const process of tree) {
    for (const [fd, inode] of socketsOf(process.pid)) if (!own.has(inode)) own.set(inode, { process, fd });
  }
  if (own.size === 0) return [];
  const peers = peersIfTold();
  return [...own].flatMap(([inode, place]) => {
    const peer = peers.get(inode);
    return peer === undefined || own.has(peer) ? [] : [{ ...place, inode, peer }];
  });
}

/** The sockets that a process has open, by descriptor: their inodes. */
export function socketsOf(pid: number | 'self'): Map<number, number> {
  const found = new Map<number, number>();
  for (const fd of listProc(`/proc/${pid}/fd`)) {
    const inode = /^socket:\[(\d+)\]$/.exec(readProcLink(`/proc/${pid}/fd/${fd}`) ?? '')?.[1];
    if (inode !== undefined) found.set(fd, Number(inode));
  }
  return found;
}

/** A kernel without CONFIG_UNIX_DIAG says nothing; CRIU needs it as well, and refuses by itself. */
function peersIfTold(): ReadonlyMap<number, number> {
  try {
    return unixPeers();
  } catch {
    return new Map();
  }
}
