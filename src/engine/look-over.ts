// SPDX-License-Identifier: Apache-2.0
import { readdirSync } from 'node:fs';
import { FastFreezeError, hasErrno } from '../base/errors.js';
import { readOpenFiles } from '../container/open-files.js';
import { findOutsideSockets, socketsOf } from '../container/outside-sockets.js';
import { type TreeProcess, readTree, residentBytes } from '../container/tree.js';
import { findOwnNamespaces } from '../criu/namespaces.js';
import { findInexactState } from '../criu/exactness.js';
import { findSemaphoreUsers } from '../criu/ipc.js';
import { type Row, fail, ok, warn } from '../criu/runtime/doctor/row.js';
import { findUnsavable } from '../criu/unsavable.js';
import { listProc, readProc, readProcLink } from '../linux/proc.js';

/**
 * Look over a running process and all below it: what of it could not be frozen, or would not come back exactly, if it ran
 * under `fastfreeze run`. It is not stopped, and what is seen may change. Throws `not-found` or `host` when it cannot be seen.
 */
export function lookOver(pid: number, privileged: boolean): Row[] {
  const tree = readTree(pid);
  if (tree.length === 0) {
    const hint = 'ps shows which there are';
    throw new FastFreezeError({
      code: 'not-found',
      op: 'look at process',
      subject: String(pid),
      reason: 'there is none',
      hint,
    });
  }
  const alive = tree.filter(({ state }) => state !== 'Z');
  for (const one of alive) refuseUnseen(one);
  const [root] = alive;
  const owner = root === undefined ? {} : { owner: root };
  const situation = { privileged, hasOwnIpc: true, devicesAreHandled: false, ...owner };
  const found = [
    ...findInexactState(tree, privileged).map((error) =>
      (error.passing ? warn : fail)('state', `${error.subject ?? ''}: ${error.reason}`, error.hint ?? ''),
    ),
    ...findOwnNamespaces(alive).map((error) =>
      fail('namespace', `${error.subject ?? ''}: ${error.reason}`, error.hint ?? ''),
    ),
    // What is of kind `state` is among the inexact as well.
    ...findUnsavable(alive, situation).flatMap(({ kind, error }) =>
      kind === 'state' ? [] : [fail(kind, `${error.subject ?? ''}: ${error.reason}`, error.hint ?? '')],
    ),
    ...semaphores(alive),
    ...alive.flatMap(connections),
    ...outside(alive),
    ...files(alive),
  ];
  return [extent(tree), ...found];
}

function extent(tree: readonly TreeProcess[]): Row {
  const threads = tree.reduce((sum, { tids }) => sum + tids.length, 0);
  const bytes = tree.reduce((sum, { pid }) => sum + residentBytes(pid), 0);
  const [root] = tree;
  return ok(
    'process',
    `${root?.pid ?? 0} (${root?.name ?? ''}): ${counted(tree.length, 'process', 'es')}, ${counted(threads, 'thread', 's')}, ${(bytes / 1048576).toFixed(1)} MiB resident`,
  );
}

function counted(number: number, word: string, plural: string): string {
  return `${number} ${word}${number === 1 ? '' : plural}`;
}

function refuseUnseen(one: TreeProcess): void {
  try {
    readdirSync(`/proc/${one.pid}/fd`);
  } catch (error) {
    if (!hasErrno(error, 'EACCES')) return; // It has ended meanwhile.
    throw new FastFreezeError({
      code: 'host',
      op: 'look at process',
      subject: nameOf(one),
      reason: 'it is not ours to look at',
      hint: 'ask as its user, or as root',
      cause: error,
    });
  }
}

/** Of what a checkpoint would look for in the IPC namespace that it gives to a job, we can see who uses semaphores here. */
function semaphores(tree: readonly TreeProcess[]): Row[] {
  return findSemaphoreUsers(tree).map(({ process, set }) =>
    warn(
      'semaphores',
      `${nameOf(process)} uses System V semaphores (set ${set}); with SEM_UNDO, or threads, they are refused`,
      'use POSIX semaphores, or --allow-inexact where it never uses SEM_UNDO',
    ),
  );
}

const TCP_ESTABLISHED = '01';

function connections(one: TreeProcess): Row[] {
  const inodes = new Set(descriptors(one).flatMap((fd) => /^socket:\[(\d+)\]$/.exec(linkOf(one, fd))?.[1] ?? []));
  if (inodes.size === 0) return [];
  const lines = [...text(one, 'net/tcp').split('\n'), ...text(one, 'net/tcp6').split('\n')];
  const count = lines.filter((line) => {
    const fields = line.trim().split(/\s+/);
    return fields[3] === TCP_ESTABLISHED && inodes.has(fields[9] ?? '');
  }).length;
  if (count === 0) return [];
  const remedy = 'the program must connect again when a connection breaks';
  return [
    warn(
      'connections',
      `${nameOf(one)} has ${counted(count, 'established TCP connection', 's')}, closed at a restore`,
      remedy,
    ),
  ];
}

/** The standard streams of `run`'s application are of `run`'s making: what stands behind them now is told apart. */
const STANDARD = [0, 1, 2];

function outside(tree: readonly TreeProcess[]): Row[] {
  const [root] = tree;
  const sockets = root === undefined ? new Map<number, number>() : socketsOf(root.pid);
  const standard = STANDARD.map((fd) => sockets.get(fd));
  const found = findOutsideSockets(tree).filter(({ inode }) => !standard.includes(inode));
  const [first] = found;
  if (first === undefined) return [];
  const where = `${nameOf(first.process)}, descriptor ${first.fd}`;
  const detail = `${where}: ${counted(found.length, 'UNIX socket', 's')} connected to processes outside, closed at a restore`;
  return [warn('sockets', detail, 'the program must connect again when a connection breaks')];
}

const SHOWN_FILES = 3;

function files(tree: readonly TreeProcess[]): Row[] {
  const [root] = tree;
  const streams = root === undefined ? [] : STANDARD.map((fd) => linkOf(root, fd));
  const open = readOpenFiles(tree, '/proc').map(({ path }) => path);
  const output = open.find((path) => streams.includes(path));
  const rest = open.filter((path) => !streams.includes(path));
  const shown =
    rest.slice(0, SHOWN_FILES).join(', ') + (rest.length > SHOWN_FILES ? `, ${rest.length - SHOWN_FILES} more` : '');
  return [
    ...(output === undefined
      ? []
      : [
          warn(
            'output',
            `${output}: after a crash lines stand there twice`,
            `fastfreeze run --output '${output}' keeps it exact`,
          ),
        ]),
    ...(rest.length === 0
      ? []
      : [
          warn(
            'files',
            `${shown}: open for writing; a restore needs them as they were at the checkpoint`,
            'fastfreeze run --preserve-open-files takes them along',
          ),
        ]),
  ];
}

function nameOf(one: Pick<TreeProcess, 'pid' | 'name'>): string {
  return `process ${one.pid} (${one.name})`;
}

function descriptors(one: TreeProcess): number[] {
  return listProc(`/proc/${one.pid}/fd`);
}

function linkOf(one: TreeProcess, fd: number): string {
  return readProcLink(`/proc/${one.pid}/fd/${fd}`) ?? '';
}

function text(one: TreeProcess, name: string): string {
  return readProc(`/proc/${one.pid}/${name}`) ?? '';
}
