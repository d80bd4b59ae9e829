// SPDX-License-Identifier: Apache-2.0
import { closeSync, openSync, readdirSync, statfsSync } from 'node:fs';
import { FastFreezeError } from '../base/errors.js';
import { listProc, readProc, readProcLink, statSeen } from '../linux/proc.js';
import { type InspectedProcess, unsavableDescriptor } from './exactness.js';
import { NO_OWN_IPC_HINT } from './ipc.js';

export interface Situation {
  /** With the machine's capabilities; false in a user namespace. */
  readonly privileged: boolean;
  /** Whether the application has, or would have, an IPC namespace of its own: CRIU saves no other. */
  readonly hasOwnIpc: boolean;
  /** As whom CRIU would run: as this process's first user; undefined: as ours. */
  readonly owner?: InspectedProcess;
  /** CRIU was given plugins or resources to leave out, which may be for the devices. */
  readonly devicesAreHandled: boolean;
}

export interface Unsavable {
  readonly kind: 'tracing' | 'ids' | 'seccomp' | 'device' | 'memory' | 'queue' | 'state';
  readonly error: FastFreezeError;
}

/**
 * What CRIU cannot save of a tree that runs: it would stop the tree, fail, and let it go on, with words of its own. The tree
 * may run, and have more of it the next moment.
 */
export function findUnsavable(tree: readonly InspectedProcess[], situation: Situation): Unsavable[] {
  return tree
    .filter(({ state }) => state !== 'Z')
    .flatMap((process) => [
      ...tracing(process),
      ...otherIds(process, situation),
      ...seccomp(process, situation),
      ...memory(process, situation),
      ...descriptors(process, situation),
    ]);
}

/** Whether options of CRIU are about devices that it does not know by itself. */
export function handlesDevices(criuOptions: readonly string[]): boolean {
  const directory = process.env['CRIU_LIBS_DIR'] ?? '';
  return directory !== '' || criuOptions.some((word) => /^(-L|--libdir|--external)/.test(word));
}

function tracing(process: InspectedProcess): Unsavable[] {
  const tracers = listProc(`/proc/${process.pid}/task`).map(
    (tid) => /^TracerPid:\s*(\d+)/m.exec(text(process, `task/${tid}/status`))?.[1] ?? '0',
  );
  const tracer = tracers.find((pid) => pid !== '0');
  if (tracer === undefined) return [];
  const name = readProc(`/proc/${tracer}/comm`)?.trim();
  const reason = `it is traced by process ${tracer}${name === undefined ? '' : ` (${name})`}`;
  return [{ kind: 'tracing', error: refusal(process, reason, 'detach the debugger, or do without strace') }];
}

/** prlimit(2) is for whoever has the very same ids, or CAP_SYS_RESOURCE: a set-uid program has not, nor one of another user. */
function otherIds(process: InspectedProcess, { privileged, owner }: Situation): Unsavable[] {
  const ours = readProc('/proc/self/status') ?? '';
  // In a user namespace of ours we have all capabilities.
  if (!privileged || (Number.parseInt(field(ours, 'CapEff') ?? 'f', 16) & CAP_SYS_RESOURCE) !== 0) return [];
  const status = text(process, 'status');
  // It has ended since it was listed.
  if (status === '') return [];
  const [uids = [], gids = []] = ['Uid', 'Gid'].map((name) => idsOf(status, name));
  const theirs = owner === undefined ? ours : text(owner, 'status');
  const [[uid], [gid]] = [idsOf(theirs, 'Uid'), idsOf(theirs, 'Gid')];
  if (uids.every((id) => id === uid) && gids.every((id) => id === gid)) return [];
  const shown = `${uids[0] ?? '?'}${uids[0] === uids[1] ? '' : `, effective ${uids[1] ?? '?'}`}`;
  const reason = `it has other ids (${shown}) than root, and reading its limits needs CAP_SYS_RESOURCE`;
  const hint = 'give the container that capability (Docker: --cap-add SYS_RESOURCE), or let the job be of one user';
  return [{ kind: 'ids', error: refusal(process, reason, hint) }];
}

const CAP_SYS_RESOURCE = 1 << 24;

/** Real, effective and saved. */
function idsOf(status: string, name: string): string[] {
  return (field(status, name) ?? '').split(/\s+/).slice(0, 3);
}

function field(status: string, name: string): string | undefined {
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1];
}

function seccomp(process: InspectedProcess, { privileged }: Situation): Unsavable[] {
  const status = text(process, 'status');
  const filters = filtersOf(status);
  // Filters that we live under ourselves (a container's) are there at the restore as well.
  if (privileged || filters <= filtersOf(readProc('/proc/self/status') ?? '')) return [];
  const reason = 'it has a seccomp filter, which cannot be saved for a normal user';
  return [{ kind: 'seccomp', error: refusal(process, reason, 'run as root, or turn the sandbox of the program off') }];
}

/** How many are in force; without that line (Linux before 5.9), whether there are any. */
function filtersOf(status: string): number {
  const count = /^Seccomp_filters:\s*(\d+)/m.exec(status)?.[1];
  const mode = /^Seccomp:\s*(\d)/m.exec(status)?.[1] ?? '0';
  return mode === '0' ? 0 : Math.max(1, Number(count ?? 1));
}

/** Mappings that have no file: what is shared with nobody outside, memfds, rings of asynchronous I/O, huge pages, System V's. */
const NO_FILE = /^\/(?:dev\/zero|memfd:.*|\[aio\]|anon_hugepage|SYSV[0-9a-f]{8})$/;

function memory(process: InspectedProcess, { privileged, hasOwnIpc }: Situation): Unsavable[] {
  const found: Unsavable[] = [];
  const maps = text(process, 'maps');
  if (/ \/SYSV[0-9a-f]{8}/.test(maps) && !(privileged && hasOwnIpc)) {
    const reason = hasOwnIpc
      ? 'it has a System V shared memory segment, which cannot be saved for a normal user'
      : 'it has a System V shared memory segment, and no IPC namespace of its own, without which that cannot be saved';
    const hint = hasOwnIpc ? 'run as root, or use POSIX shared memory or mmap' : NO_OWN_IPC_HINT;
    found.push({ kind: 'memory', error: refusal(process, reason, hint) });
  }
  const gone =
    privileged || mayOpenMappedFiles()
      ? undefined
      : [...maps.matchAll(/^\S+ .... \S+ \S+ \d+ +(\/.*) \(deleted\)$/gm)]
          .map(([, path]) => path ?? '')
          .find((path) => !NO_FILE.test(path));
  if (gone !== undefined) {
    const reason = `it has the file ${gone} mapped, which was deleted or replaced and cannot be saved for a normal user`;
    const hint =
      'run as root; let mapped files stay (POSIX semaphores and Python multiprocessing locks delete theirs); after an upgrade of a library start anew';
    found.push({ kind: 'memory', error: refusal(process, reason, hint) });
  }
  return found;
}

/** The machine's root with CAP_CHECKPOINT_RESTORE alone may: CRIU then finds a file that has no name by its mapping. */
function mayOpenMappedFiles(): boolean {
  const directory = '/proc/self/map_files';
  try {
    const [one = ''] = readdirSync(directory);
    closeSync(openSync(`${directory}/${one}`, 'r'));
    return true;
  } catch {
    return false; // As for all users.
  }
}

function descriptors(process: InspectedProcess, situation: Situation): Unsavable[] {
  const found: Unsavable[] = [];
  const devices = new Set<string>();
  for (const fd of listProc(`/proc/${process.pid}/fd`)) {
    const link = readProcLink(`/proc/${process.pid}/fd/${fd}`);
    if (link === undefined) continue;
    const place = { process, fd };
    const error = unsavableDescriptor(place, link, situation.privileged);
    if (error !== undefined) found.push({ kind: 'state', error });
    if (!situation.devicesAreHandled && !devices.has(link) && isUnknownDevice(process, fd, link)) {
      devices.add(link);
      const reason = `${link} is open, a device that cannot be saved`;
      const hint = 'close it before a checkpoint, or run without the device';
      found.push({ kind: 'device', error: refusal(process, reason, hint, fd) });
    }
    if (isMessageQueue(process, fd, link)) {
      const reason = `the POSIX message queue ${link} cannot be saved`;
      found.push({
        kind: 'queue',
        error: refusal(process, reason, 'use a pipe, a socket or System V message queues', fd),
      });
    }
  }
  return found;
}

/** Character devices that CRIU knows, by major number: memory (null, zero, random...), terminals, serial lines. */
const KNOWN_MAJORS: readonly number[] = [
  1, 4, 5, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 142, 143, 188, 204,
];
const MISC_MAJOR = 10;
/** TUN and autofs. */
const KNOWN_MISC_MINORS: readonly number[] = [200, 235];

function isUnknownDevice(process: InspectedProcess, fd: number, link: string): boolean {
  if (!link.startsWith('/')) return false;
  const stat = statSeen(`/proc/${process.pid}/fd/${fd}`);
  if (stat === undefined || (!stat.isCharacterDevice() && !stat.isBlockDevice())) return false;
  if (stat.isBlockDevice()) return true;
  const device = Number(stat.rdev);
  const [major, minor] = [(device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00)];
  return !KNOWN_MAJORS.includes(major) && !(major === MISC_MAJOR && KNOWN_MISC_MINORS.includes(minor));
}

const MQUEUE_MAGIC = 0x19800202;

/** Their names have one slash, at the beginning; few files' have. */
function isMessageQueue(process: InspectedProcess, fd: number, link: string): boolean {
  if (!/^\/[^/]+$/.test(link)) return false;
  try {
    return statfsSync(`/proc/${process.pid}/fd/${fd}`).type === MQUEUE_MAGIC;
  } catch {
    // The process or descriptor has gone, or we may not look.
    return false;
  }
}

function refusal({ pid, name }: InspectedProcess, reason: string, hint: string, fd?: number): FastFreezeError {
  const subject = `${pid} (${name})${fd === undefined ? '' : `, descriptor ${fd}`}`;
  return new FastFreezeError({ code: 'unsupported', op: 'freeze process', subject, reason, hint });
}

function text({ pid }: InspectedProcess, name: string): string {
  return readProc(`/proc/${pid}/${name}`) ?? '';
}
