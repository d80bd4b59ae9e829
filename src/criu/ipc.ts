// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError, asFastFreezeError } from '../base/errors.js';
import { inIpcNamespaceOf, lastChangeOfSemaphore, messageQueues, hasSemaphoreUndo } from '../linux/ipc.js';
import { readProc, readProcLink } from '../linux/proc.js';
import type { InspectedProcess } from './exactness.js';

/** A process as far as this check needs it. */
export interface IpcUser extends InspectedProcess {
  readonly tids: readonly number[];
}

export interface IpcFindings {
  /** What CRIU would forget without a word, as refusals. */
  readonly found: readonly FastFreezeError[];
  /** Segments that go with their last mapping (IPC_RMID): CRIU brings them back as ones that stay. */
  readonly removedSegments: readonly number[];
}

/**
 * CRIU saves an IPC namespace other than its own, with all that is in it, and brings it back. The application of a container of
 * ours has one. Without, it shares that of CRIU, of which nothing is saved.
 */
export function hasOwnIpc(rootPid: number): boolean {
  const [theirs, ours] = [readProcLink(`/proc/${rootPid}/ns/ipc`), readProcLink('/proc/self/ns/ipc')];
  return theirs !== undefined && ours !== undefined && theirs !== ours;
}

/**
 * Look, while a tree (root first) is frozen, for System V IPC and message queues that would not come back as they are.
 * `isPrivate`: also the IPC namespace that we are in ourselves is the job's alone.
 */
export function inspectIpc(tree: readonly IpcUser[], isPrivate: boolean): IpcFindings {
  const [root] = tree;
  if (root === undefined) return { found: [], removedSegments: [] };
  if (!hasOwnIpc(root.pid)) return { found: findLeftBehind(tree, readIpc(isPrivate), isPrivate), removedSegments: [] };
  let ipc: Ipc;
  try {
    ipc = inIpcNamespaceOf(root.pid, () => readIpc(true));
  } catch (error) {
    throw asFastFreezeError(error, 'look at the IPC namespace of the application');
  }
  refuseLargeMessages(root, ipc);
  return {
    found: findForgotten(tree, ipc),
    removedSegments: ipc.segments.filter(isRemoved).map(({ id }) => id),
  };
}

/** The processes of a tree that have changed System V semaphores, as far as our own IPC namespace has these. */
export function findSemaphoreUsers(tree: readonly IpcUser[]): { readonly process: IpcUser; readonly set: number }[] {
  const { sets } = readIpc(false);
  return tree.flatMap((process) => {
    const set = sets.find(({ pids }) => pids.includes(process.pid));
    return set === undefined ? [] : [{ process, set: set.id }];
  });
}

/** Who has no IPC namespace. */
export const NO_OWN_IPC_HINT =
  'use POSIX shared memory and semaphores; or start it anew without --no-container, and as a normal user with ids of its own as root';

interface Ipc {
  readonly segments: readonly { readonly id: number; readonly mode: number; readonly pids: readonly number[] }[];
  /** Sets of semaphores, with the processes that last changed each. */
  readonly sets: readonly { readonly id: number; readonly pids: readonly number[] }[];
  readonly queues: readonly { readonly id: number; readonly bytes: number; readonly pids: readonly number[] }[];
  /** POSIX message queues, without their slash. */
  readonly posix: readonly string[];
  readonly maxMessageBytes: number;
}

/** Of the IPC namespace that we are in. PIDs are those of our PID namespace: what is outside of it is 0, and left out. */
function readIpc(isPrivate: boolean): Ipc {
  return {
    segments: table('shm').map((row) => ({
      id: number(row, 'shmid'),
      mode: Number.parseInt(row.get('perms') ?? '0', 8),
      pids: [number(row, 'cpid'), number(row, 'lpid')].filter((pid) => pid > 0),
    })),
    sets: table('sem').map((row) => {
      const id = number(row, 'semid');
      const changed = Array.from({ length: number(row, 'nsems') }, (_, i) => lastChangeOfSemaphore(id, i));
      return { id, pids: [...new Set(changed)].filter((pid) => pid > 0) };
    }),
    queues: table('msg').map((row) => ({
      id: number(row, 'msqid'),
      bytes: number(row, 'cbytes'),
      pids: [number(row, 'lspid'), number(row, 'lrpid')].filter((pid) => pid > 0),
    })),
    // Those of the machine may not be looked at by everybody, and do not say whose they are.
    posix: isPrivate ? queuesIfTold() : [],
    maxMessageBytes: Number(readProc('/proc/sys/kernel/msgmax') ?? 0),
  };
}

/** A kernel may have none (CONFIG_POSIX_MQUEUE), or be before 5.2 and not let us look. One that is open is seen elsewhere. */
function queuesIfTold(): string[] {
  try {
    return messageQueues();
  } catch {
    return [];
  }
}

/** A file of /proc/sysvipc: a line of names, then one line for each object. */
function table(name: string): ReadonlyMap<string, string>[] {
  const [head = '', ...lines] = (readProc(`/proc/sysvipc/${name}`) ?? '').split('\n');
  const names = words(head);
  return lines
    .filter((line) => line.trim() !== '')
    .map((line) => new Map(words(line).map((word, i) => [names[i] ?? '', word])));
}

function words(line: string): string[] {
  return line.trim().split(/\s+/);
}

function number(row: ReadonlyMap<string, string>, name: string): number {
  return Number(row.get(name) ?? 0);
}

const SHM_DEST = 0o1000;

function isRemoved({ mode }: { readonly mode: number }): boolean {
  return (mode & SHM_DEST) !== 0;
}

/** CRIU's buffer has room for no larger message when it brings them back, though it saves them. */
const MAX_MESSAGE_BYTES = 8192;

/** Whatever is allowed: such an image would not come back at all. */
function refuseLargeMessages(root: IpcUser, ipc: Ipc): void {
  const large = ipc.queues.find(({ bytes }) => ipc.maxMessageBytes > MAX_MESSAGE_BYTES && bytes > MAX_MESSAGE_BYTES);
  if (large === undefined) return;
  const reason = `the System V message queue ${large.id} may hold a message over 8 KiB, which cannot be brought back`;
  throw refusal(root, reason, 'leave kernel.msgmax as it is');
}

function findForgotten(tree: readonly IpcUser[], ipc: Ipc): FastFreezeError[] {
  const [root] = tree;
  if (root === undefined) return [];
  const found: FastFreezeError[] = [];
  const [set] = ipc.sets;
  const holder = tree.find((one) => set !== undefined && one.state !== 'Z' && mayUndo(one));
  if (set !== undefined && holder !== undefined) {
    const reason = `its end may give back System V semaphores (set ${set.id}) that it has taken with SEM_UNDO, which would be forgotten`;
    const hint =
      holder.tids.length > 1
        ? 'use POSIX semaphores; of a process with threads it cannot be seen, so where it never uses SEM_UNDO say --allow-inexact'
        : 'use POSIX semaphores, or no SEM_UNDO';
    found.push(refusal(holder, reason, hint));
  }
  const [posix] = ipc.posix;
  if (posix !== undefined) {
    const hint = 'use a pipe, a socket or System V message queues';
    found.push(refusal(root, `the POSIX message queue /${posix} would be forgotten`, hint));
  }
  return found;
}

/** The kernel does not tell what is in the list, and every process with threads has one. */
function mayUndo(one: IpcUser): boolean {
  return one.tids.length > 1 || hasSemaphoreUndo(one.pid) !== false;
}

/**
 * What other processes of the container have is not the job's, unless the namespace is. Of the job's own that have ended, PIDs are
 * left; a queue or set of semaphores that nobody has used yet does not say whose it is.
 */
function findLeftBehind(tree: readonly IpcUser[], ipc: Ipc, isPrivate: boolean): FastFreezeError[] {
  const [root] = tree;
  if (root === undefined) return [];
  const isOurs = (pid: number): boolean =>
    tree.some((one) => one.pid === pid) || (pid >= root.pid && readProc(`/proc/${pid}/stat`) === undefined);
  const ours = ({ pids }: { readonly pids: readonly number[] }): boolean => isPrivate || pids.some(isOurs);
  const [segment, set, queue] = [ipc.segments.find(ours), ipc.sets.find(ours), ipc.queues.find(ours)];
  const what =
    (segment && `the System V shared memory segment ${segment.id}`) ??
    (set && `the System V semaphores ${set.id}`) ??
    (queue && `the System V message queue ${queue.id}`) ??
    (ipc.posix[0] === undefined ? undefined : `the POSIX message queue /${ipc.posix[0]}`);
  if (what === undefined) return [];
  return [refusal(root, `${what} would be left behind: the job has no IPC namespace of its own`, NO_OWN_IPC_HINT)];
}

function refusal(process: IpcUser, reason: string, hint: string): FastFreezeError {
  const subject = `${process.pid} (${process.name})`;
  return new FastFreezeError({ code: 'unsupported', op: 'freeze process', subject, reason, hint });
}
