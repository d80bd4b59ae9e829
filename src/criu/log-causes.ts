// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { NO_OWN_IPC_HINT } from './ipc.js';

export interface CriuCause {
  /** Why CRIU refused, in words of the application. */
  readonly reason: string;
  readonly hint?: string;
  /** CRIU's own decisive line, for search engines. */
  readonly line: string;
  /** The tree changed under CRIU's eyes: the same dump may succeed a moment later. */
  readonly passing?: boolean;
}

interface Pattern {
  readonly match: RegExp;
  readonly reason: (groups: readonly string[]) => string;
  readonly hint?: string;
  readonly passing?: boolean;
}

const CAME_AND_WENT = {
  reason: () => 'processes came and went while CRIU collected them',
  hint: 'try again',
  passing: true,
};

/** Known refusals, most telling first. The order matters: CRIU logs consequences after causes. */
const PATTERNS: readonly Pattern[] = [
  {
    match:
      /Unexpected child (\d+)|Can't (?:seize|attach to) task \d+.*No such process|Unable to interrupt task: \d+ \(No such process\)/,
    ...CAME_AND_WENT,
  },
  {
    match: /Unable to interrupt task: (\d+) \(Operation not permitted\)/,
    reason: ([pid]) => `CRIU may not trace process ${pid ?? '?'}`,
    hint: 'allow ptrace (kernel.yama.ptrace_scope=0 or CAP_SYS_PTRACE); a process that is being traced (strace, gdb) cannot be frozen',
  },
  {
    match: /Can't open (\d+)'s mapfile link ([0-9a-f]+)/,
    reason: ([pid]) => `process ${pid ?? '?'} maps a file that was deleted, which a normal user cannot save`,
    hint: 'run as root, or keep mapped files (POSIX semaphores, Python multiprocessing locks) from being unlinked',
  },
  {
    match: /Can't stat map_files: Operation not permitted/,
    reason: () => 'the application has a System V shared memory segment, which cannot be saved for a normal user',
    hint: 'run as root, or use POSIX shared memory or mmap',
  },
  {
    match: /Task (\d+) with SysVIPC shmem map/,
    reason: ([pid]) => `process ${pid ?? '?'} has a System V shared memory segment, and no IPC namespace of its own`,
    hint: NO_OWN_IPC_HINT,
  },
  {
    match: /fsnotify:.*(?:Can't dump that handle|Handle .* cannot be opened)/,
    reason: () => 'the application watches files with inotify, which a normal user cannot save',
    hint: 'run as root, or turn the file watching off',
  },
  {
    match: /Can't (?:get|dump) .*(?:1:16|SO_PASSRIGHTS|opt).*Operation not supported/,
    reason: () => 'this CRIU cannot save sockets on this kernel',
    hint: 'fastfreeze install --force makes a CRIU of version 4.2.1 or later',
  },
  {
    match: /anon_inode:\[io_uring\]/,
    reason: () => 'the application uses io_uring, which cannot be saved',
    hint: 'for Node.js programs set UV_USE_IO_URING=0',
  },
  {
    match: /(?:Packetized pipes|O_DIRECT|packet).*not supported|Unsupported pipe/i,
    reason: () => 'the application has a packet-mode pipe (O_DIRECT), which cannot be saved',
  },
  {
    match: /File (.+) has bad (size|mode) (\d+) \(expect (\d+)\)/,
    reason: ([path, what, have, want]) =>
      what === 'mode'
        ? `file ${absolute(path)} has mode ${have ?? '?'} now, and had ${want ?? '?'} at the checkpoint`
        : `file ${absolute(path)} has ${have ?? '?'} bytes now, and had ${want ?? '?'} at the checkpoint`,
    hint: 'bring the file back as it was recorded: its content, cut to its size, and its mode; next time --preserve-open-files does it',
  },
  {
    match: /Can't open file (.+?)(?: on restore)?:/,
    reason: ([path]) => `file ${absolute(path)}, open in the application, cannot be opened here`,
    hint: 'the file system must hold the same files as where the image was made',
  },
  {
    match: /Can't lookup mount=\d+ for fd=(-?\d+) path=(\S+)/,
    reason: ([fd, path]) => `descriptor ${fd ?? '?'} (${path ?? '?'}) was opened outside the container`,
    hint: 'let the application open the file itself',
  },
  {
    match:
      /Can't dump half of stream unix connection|Unix socket .* with(?:out| unreachable) peer|Can't dump unix socket/,
    reason: () => 'the application has just connected a UNIX socket to a process outside the job',
    hint: 'try again in a moment',
    passing: true,
  },
  {
    match: /Can't dump nested (\w+?)(?:_for_children)? namespace for (\d+)/,
    reason: ([kind, pid]) =>
      `process ${pid ?? '?'} is in a ${kind ?? '?'} namespace of its own, which cannot be brought back`,
    hint: "turn off the program's sandbox or container",
  },
  {
    match: /unix: Dangling connection/,
    reason: () => 'a UNIX socket of the application waits for a process outside the job to accept its connection',
    hint: 'try again when that process answers',
    passing: true,
  },
  {
    match: /Can't fork for (\d+): File exists|Pid (\d+) do(?:es)? not match/,
    reason: (groups) => `PID ${groups.find((g) => g !== '') ?? '?'} is taken here`,
    hint: 'let fastfreeze make its own container (no --no-container)',
  },
  {
    match: /\b[cf]pu: .*(?:required by image|not match|not supported|unsupported|mismatch|not present)/i,
    reason: () => 'this CPU lacks features that the image needs',
    hint: 'restore on a machine with the same or newer CPU features',
  },
  {
    match: /Can't bind inet socket.*Address already in use/,
    reason: () => 'a TCP or UDP port that the application listens on is in use here',
    hint: 'end the program that has it (ss -lntup), wait a minute for connections that have just been closed, or listen elsewhere with --tcp-listen-remap',
  },
  {
    match: /Unable to set a (?:monotonic|boottime) clock offset: Operation not permitted/,
    reason: () => 'CRIU may not set the clocks of the application here',
    hint: 'give the container CAP_SYS_TIME, or use --no-container with CAP_CHECKPOINT_RESTORE and without CAP_SYS_ADMIN',
  },
  {
    match: /Unable to drop capability \d+/,
    reason: () => 'CRIU may not give the application the capabilities that it had',
    hint: 'give the container CAP_SETPCAP, which container engines do unless they are told to drop it',
  },
  { match: /No space left on device/, reason: () => 'no space is left on the device' },
  {
    match: /Can't resolve device|Can't dump file (\d+) of that type|Can't dump.*chr/,
    reason: ([fd]) =>
      `the application has a device open that cannot be saved${fd === '' ? '' : ` (descriptor ${fd ?? '?'})`}`,
    hint: 'close the device (GPUs and character devices other than /dev/null, zero, random and terminals do not travel)',
  },
  {
    match: /Can't get rlimit \d+: Operation not permitted/,
    reason: () => 'a process has other ids than root, and reading its limits needs CAP_SYS_RESOURCE',
    hint: 'give the container that capability (Docker: --cap-add SYS_RESOURCE), or let the job be of one user',
  },
  {
    match: /suspend(?:ing)? seccomp|seccomp failed/i,
    reason: () => 'a seccomp filter is in force that CRIU may not suspend',
    hint: 'run the container with --security-opt seccomp=unconfined',
  },
  { match: /Unable to detach from \d+: No such process/, ...CAME_AND_WENT },
];

/** The cause of CRIU's failure out of its log; undefined when the log says nothing of use. */
export function findCause(logPath: string): CriuCause | undefined {
  let text: string;
  try {
    text = readFileSync(logPath, 'utf8');
  } catch {
    // No log: CRIU did not get as far as opening it.
    return undefined;
  }
  return causeInLog(text);
}

export function causeInLog(text: string): CriuCause | undefined {
  // A task that cannot be seized is a zombie, as a rule, and none the worse for it; unless CRIU gave up over it.
  const lines = text.split('\n').filter((line) => {
    const pid = /Unable to interrupt task: (\d+)/.exec(line)?.[1];
    return pid === undefined || text.includes(`Unable to detach from ${pid}:`);
  });
  const errors = lines.filter((line) => line.includes('Error (') && !HARMLESS.test(line) && !WAKE.test(line));
  const known = knownCause(errors) ?? knownCause(lines);
  if (known !== undefined) return known;
  // The first error is the cause; the ones after it are its wake.
  const [first] = errors;
  return first === undefined ? undefined : { reason: strip(first), line: strip(first) };
}

function knownCause(lines: readonly string[]): CriuCause | undefined {
  for (const pattern of PATTERNS) {
    for (const line of lines) {
      const match = pattern.match.exec(line);
      if (match === null) continue;
      const reason = pattern.reason(match.slice(1).map((group: string | undefined) => group ?? ''));
      return {
        reason,
        line: strip(line),
        ...(pattern.hint === undefined ? {} : { hint: pattern.hint }),
        ...(pattern.passing === undefined ? {} : { passing: pattern.passing }),
      };
    }
  }
  return undefined;
}

/** CRIU names files from the root on, without its slash. */
function absolute(path: string | undefined): string {
  return path === undefined ? '?' : path.replace(/^(?!\/)/, '/');
}

/** What CRIU logs inside every user namespace, or container without /dev/net/tun, without consequence. */
const HARMLESS =
  /RLIMIT_NOFILE|Unable to create tun: No such file|Unable to (?:get|set).*net|net: Unexpected error: -1\(|sysctl(?! (?:kernel\/|fs\/mqueue))|kerndat_|Can't (?:set|make) .*oom|cgroup/i;

/** What CRIU logs after any failure. */
const WAKE = /Unable to detach from|(?:Dumping|Restoring) FAILED/;

function strip(line: string): string {
  return line
    .replace(/^\(\d+\.\d+\)\s*/, '')
    .replace(/^\s*(?:pie: )?\d+:\s*/, '')
    .replace(/^Error \([^)]*\):\s*/, '')
    .trim();
}
