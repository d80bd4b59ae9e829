// SPDX-License-Identifier: Apache-2.0
import { FastFreezeError } from '../base/errors.js';
import { foreignReadableBytes } from '../linux/foreign-fds.js';
import { listProc, readProc, readProcLink, statSeen } from '../linux/proc.js';

/** A process of the frozen tree, as far as this check needs it. */
export interface InspectedProcess {
  readonly pid: number;
  readonly name: string;
  readonly state: string;
  /** As wait(2) encodes it. */
  readonly exitCode: number;
}

export type Allowance = 'nothing' | 'what stays' | 'everything';

/**
 * Look, while the tree is frozen, for state that CRIU saves without complaint and brings back changed.
 * Throws `unsupported` naming process, descriptor and remedy: a job that would not continue exactly is not stopped.
 * Where it is allowed nevertheless, says in words what was found; `what stays` does not allow what may pass in a moment.
 * `further` is what others have found.
 */
export function refuseInexactState(
  tree: readonly InspectedProcess[],
  privileged: boolean,
  allowance: Allowance = 'nothing',
  further: readonly FastFreezeError[] = [],
): string[] {
  const found = [...findInexactState(tree, privileged), ...further];
  const refused = found.find(({ passing }) => allowance === 'nothing' || (passing && allowance === 'what stays'));
  if (refused !== undefined) throw refused;
  return found.map(({ subject, reason }) => `${subject ?? 'a process'}: ${reason}`);
}

/** All that `refuseInexactState` would refuse. The tree may run: then what is found may be gone the next moment. */
export function findInexactState(tree: readonly InspectedProcess[], privileged: boolean): FastFreezeError[] {
  const memfds = new Map<string, Place>();
  const sharedMemfds = new Map<string, Place>();
  const found: (FastFreezeError | undefined)[] = [];
  for (const process of tree) {
    if (process.state === 'Z') {
      found.push(checkZombie(process, privileged));
      continue;
    }
    found.push(checkProgram(process));
    for (const fd of listProc(`/proc/${process.pid}/fd`)) found.push(checkDescriptor(process, fd, memfds, privileged));
    if (!privileged) collectSharedMemfds(process, sharedMemfds);
  }
  for (const [inode, place] of memfds) {
    if (privileged || !sharedMemfds.has(inode)) continue;
    const reason = 'a memfd that is also mapped shared would come back as two separate objects';
    found.push(refusal(place, reason, 'run as root, or close the descriptor after mapping it'));
  }
  return found.filter((one) => one !== undefined);
}

export interface Place {
  readonly process: InspectedProcess;
  readonly fd: number;
}

/** What CRIU cannot save at all, and is seen before it tries. */
export function unsavableDescriptor(place: Place, link: string, privileged: boolean): FastFreezeError | undefined {
  if (link.startsWith('pipe:[')) {
    const flags = Number.parseInt(field(fdinfo(place), 'flags') ?? '0', 8);
    if ((flags & O_DIRECT) === 0 || (flags & 3) === 0) return undefined;
    return refusal(place, 'a pipe in packet mode (O_DIRECT) cannot be saved', 'use a plain pipe or a socket pair');
  }
  if (!privileged && link === 'anon_inode:inotify' && fdinfo(place).includes('inotify wd:')) {
    return refusal(
      place,
      'watches of inotify cannot be saved for a normal user',
      'run as root, or turn the file watching off',
    );
  }
  if (link === 'anon_inode:[io_uring]') {
    return refusal(place, 'io_uring cannot be saved', 'for Node.js programs set UV_USE_IO_URING=0');
  }
  return undefined;
}

function checkZombie(process: InspectedProcess, privileged: boolean): FastFreezeError | undefined {
  const code = (process.exitCode >> 8) & 0xff;
  const signal = process.exitCode & 0x7f;
  if (signal !== 0 && !privileged) {
    return new FastFreezeError({
      code: 'unsupported',
      op: 'freeze process',
      subject: `${process.pid} (${process.name})`,
      reason: `it is a zombie that died of signal ${signal}, which would come back as exit code 0 for a normal user`,
      hint: 'try again when its parent has waited for it, or run as root',
      passing: true,
    });
  }
  if (signal !== 0 || code < 128) return undefined;
  return new FastFreezeError({
    code: 'unsupported',
    op: 'freeze process',
    subject: `${process.pid} (${process.name})`,
    reason: `it is a zombie with exit code ${code}, of which CRIU would bring back ${code & 0x7f}`,
    hint: 'try again when its parent has waited for it',
    passing: true,
  });
}

/**
 * Slurm's `srun` is only what waits: its tasks are children of Slurm's daemons. Restored, it finds its connections closed and
 * its step gone, and was seen to wait for ever all the same.
 */
function checkProgram(process: InspectedProcess): FastFreezeError | undefined {
  if (process.name !== 'srun' || readProcLink(`/proc/${process.pid}/exe`)?.endsWith('/srun') !== true) return undefined;
  return new FastFreezeError({
    code: 'unsupported',
    op: 'freeze process',
    subject: `${process.pid} (${process.name})`,
    reason: "srun would wait for ever for tasks that are not frozen: they are processes of Slurm's daemons",
    hint: 'start the program without srun, in the process tree of the job; or freeze it while no srun runs',
  });
}

function checkDescriptor(
  process: InspectedProcess,
  fd: number,
  memfds: Map<string, Place>,
  privileged: boolean,
): FastFreezeError | undefined {
  const place = { process, fd };
  const link = readProcLink(`/proc/${process.pid}/fd/${fd}`);
  if (link === undefined) return undefined;
  // CRIU's own parasite is in the application while it is frozen.
  if (link.startsWith('/memfd:CRIUMFD')) return undefined;
  const unsavable = unsavableDescriptor(place, link, privileged);
  if (unsavable !== undefined) return unsavable;
  if (link.startsWith('/memfd:')) {
    // Not out of fdinfo, which tells it from Linux 5.14 on only.
    const inode = statSeen(`/proc/${process.pid}/fd/${fd}`)?.ino;
    if (inode !== undefined) memfds.set(String(inode), place);
  } else if (link === 'anon_inode:[eventfd]') {
    // Before Linux 6.5 nothing tells it, and docs/limitations.md says so: only reading would, and that changes the count.
    if (field(fdinfo(place), 'eventfd-semaphore') === '1') {
      return refusal(place, 'an eventfd in semaphore mode would lose that mode', 'use a plain eventfd or a pipe');
    }
  } else if (link === 'anon_inode:[timerfd]') {
    const info = fdinfo(place);
    const expired = Number(field(info, 'ticks') ?? 0) > 0 && /it_value:\s*\(0, 0\)/.test(info);
    if (expired && !/it_interval:\s*\(0, 0\)/.test(info)) {
      return refusal(
        place,
        'a periodic timerfd has expired and was not read: it would never fire again',
        'try again in a moment; the application reads it as soon as it runs',
        true,
      );
    }
  } else if (link === 'anon_inode:inotify' && (foreignReadableBytes(process.pid, fd) ?? 0) > 0) {
    return refusal(
      place,
      'inotify has told it of changes that it has not read yet, which would be forgotten',
      'try again in a moment; the application reads them as soon as it runs',
      true,
    );
  }
  return undefined;
}

const O_DIRECT = 0o40000;

function collectSharedMemfds(process: InspectedProcess, found: Map<string, Place>): void {
  for (const line of (readProc(`/proc/${process.pid}/maps`) ?? '').split('\n')) {
    const match = /^\S+ ...s \S+ \S+ (\d+)\s+\/memfd:(?!CRIUMFD)/.exec(line);
    if (match?.[1] !== undefined) found.set(match[1], { process, fd: -1 });
  }
}

function refusal(place: Place, reason: string, hint: string, passing = false): FastFreezeError {
  return new FastFreezeError({
    code: 'unsupported',
    op: 'freeze process',
    subject: `${place.process.pid} (${place.process.name}), descriptor ${place.fd}`,
    reason,
    hint,
    passing,
  });
}

function fdinfo(place: Place): string {
  return readProc(`/proc/${place.process.pid}/fdinfo/${place.fd}`) ?? '';
}

function field(text: string, name: string): string | undefined {
  return new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(text)?.[1];
}
