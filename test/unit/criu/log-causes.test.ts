// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from '@jest/globals';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { causeInLog, findCause } from '../../../src/criu/log-causes.js';
import { makeDirectory } from '../linux/support.js';

/** What CRIU 4.2.1 says in every log of a user namespace, and after every failure. */
const BEFORE = [
  'Warn  (criu/kerndat.c:1200): $XDG_RUNTIME_DIR not set. Cannot find location for kerndat file',
  "(00.000000) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted",
  '(00.004211) Error (criu/net.c:1253): net: Unexpected error: -1(Operation not permitted)',
  '(00.008113) Warn  (compel/arch/x86/src/lib/infect.c:419): Will restore 1012 with interrupted system call',
];
const AFTER = ['(00.030711) Error (criu/cr-dump.c:1975): Dumping FAILED.'];

const log = (...lines: string[]): string => [...BEFORE, ...lines, ...AFTER, ''].join('\n');

interface Known {
  readonly what: string;
  readonly lines: readonly string[];
  readonly reason: string | RegExp;
  readonly hint?: RegExp;
  readonly passing?: boolean;
}

const KNOWN: readonly Known[] = [
  {
    what: 'clocks that a container may not set, after what every container lacks',
    lines: [
      '(00.001) Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory',
      '(00.012) Error (criu/timens.c:101): Unable to set a monotonic clock offset: Operation not permitted',
    ],
    reason: /may not set the clocks/,
    hint: /CAP_SYS_TIME/,
  },
  {
    what: 'capabilities that a container may not drop',
    lines: ['(00.012) pie: 1000: Error (criu/pie/restorer.c:316): Unable to drop capability 0: -1'],
    reason: /capabilities that it had/,
    hint: /CAP_SETPCAP/,
  },
  {
    what: 'a child born while CRIU collected',
    lines: ['(00.012) Error (criu/seize.c:763): Unexpected child 1031'],
    reason: /came and went/,
    passing: true,
  },
  {
    what: 'a process that has just gone',
    lines: [
      '(00.030672) Warn  (compel/src/lib/infect.c:132): Unable to interrupt task: 2097 (No such process)',
      '(00.030689) Error (compel/src/lib/infect.c:417): Unable to detach from 2097: No such process',
    ],
    reason: /came and went/,
    passing: true,
  },
  {
    what: 'a process that died under CRIU',
    lines: ['(00.030689) Error (compel/src/lib/infect.c:417): Unable to detach from 1000: No such process'],
    reason: /came and went/,
    passing: true,
  },
  {
    what: 'a process that a debugger holds',
    lines: [
      '(00.030672) Warn  (compel/src/lib/infect.c:132): Unable to interrupt task: 8301 (Operation not permitted)',
      '(00.030681) net: Unlock network',
      '(00.030689) Error (compel/src/lib/infect.c:417): Unable to detach from 8301: No such process',
    ],
    reason: 'CRIU may not trace process 8301',
    hint: /strace, gdb/,
  },
  {
    what: 'a deleted file that is mapped',
    lines: [
      "(00.1) Error (criu/proc_parse.c:512): Can't open 1000's mapfile link 7f0a4b2c1000: Operation not permitted",
    ],
    reason: /process 1000 maps a file that was deleted/,
    hint: /run as root/,
  },
  {
    what: 'inotify',
    lines: [
      '(00.1) Warn  (criu/fsnotify.c:284): fsnotify: \tHandle 0x3:0x1f cannot be opened',
      "(00.1) Error (criu/fsnotify.c:289): fsnotify: \tCan't dump that handle",
    ],
    reason: /inotify/,
    hint: /run as root/,
  },
  {
    what: 'sockets on a new kernel',
    lines: ["(00.1) Error (criu/sockets.c:467): sockets: Can't get 1:16 opt: Operation not supported"],
    reason: /cannot save sockets on this kernel/,
    hint: /fastfreeze install/,
  },
  {
    what: 'a packet-mode pipe',
    lines: [
      '(00.1) Error (criu/pipes.c:490): The packetized mode for pipes is not supported yet',
      '(00.1) Error (criu/cr-dump.c:1545): Dump files (pid: 1575) failed with -1',
    ],
    reason: /packet-mode pipe/,
  },
  {
    what: 'half a socket pair',
    lines: [
      "Error (criu/sk-unix.c:881): unix: Can't dump half of stream unix connection. name: (null); peer name: (null)",
    ],
    reason: /UNIX socket to a process outside the job/,
    hint: /try again/,
    passing: true,
  },
  {
    what: 'a connection that nobody has accepted yet',
    lines: ['(00.1) Error (criu/sk-unix.c:465): unix: Dangling connection 81234'],
    reason: /waits for a process outside the job/,
    passing: true,
  },
  {
    what: 'a nested namespace',
    lines: [
      "(00.1) Error (criu/namespaces.c:531): Can't dump nested time_for_children namespace for 1012",
      '(00.1) Error (criu/namespaces.c:789): Dump core failed with -1',
    ],
    reason: 'process 1012 is in a time namespace of its own, which cannot be brought back',
    hint: /sandbox/,
  },
  {
    what: 'a file that grew',
    lines: ['(00.05)   1000: Error (criu/files-reg.c:2286): File var/log/my job.log has bad size 198 (expect 110)'],
    reason: 'file /var/log/my job.log has 198 bytes now, and had 110 at the checkpoint',
    hint: /bring the file back/,
  },
  {
    what: 'a file whose mode changed',
    lines: ['(00.05)   1000: Error (criu/files-reg.c:2301): File tmp/data has bad mode 0100644 (expect 0100600)'],
    reason: 'file /tmp/data has mode 0100644 now, and had 0100600 at the checkpoint',
    hint: /bring the file back/,
  },
  {
    what: 'a file that is missing',
    lines: [
      "(00.05)   1000: Error (criu/files-reg.c:2241): Can't open file tmp/a file on restore: No such file or directory",
    ],
    reason: 'file /tmp/a file, open in the application, cannot be opened here',
    hint: /same files/,
  },
  {
    what: 'a file that is missing, said in another place',
    lines: ["(00.05)   1000: Error (criu/files-reg.c:1890): Can't open file tmp/data: No such file or directory"],
    reason: 'file /tmp/data, open in the application, cannot be opened here',
  },
  {
    what: 'a port that somebody has',
    lines: ["(00.05)   1000: Error (criu/sk-inet.c:1043): inet: Can't bind inet socket (id 7): Address already in use"],
    reason: 'a TCP or UDP port that the application listens on is in use here',
    hint: /ss -lntup/,
  },
  {
    what: 'a descriptor from outside',
    lines: ["(00.05) Error (criu/files-reg.c:1747): Can't lookup mount=24 for fd=10 path=/dev/null"],
    reason: 'descriptor 10 (/dev/null) was opened outside the container',
  },
  {
    what: 'a PID that is taken',
    lines: ["(00.05) Error (criu/cr-restore.c:1297): Can't fork for 1021: File exists"],
    reason: 'PID 1021 is taken here',
    hint: /container/,
  },
  {
    what: 'a PID that came out wrong',
    lines: ['(00.05)   1021: Error (criu/cr-restore.c:1530): Pid 77 do not match expected 1021'],
    reason: 'PID 77 is taken here',
  },
  ...[
    'FPU feature required by image is not supported on host (fpu:1 fxsr:1 osxsave:0 xsaves:1)',
    'CPU instruction capabilities do not match run time',
    'CPU xsave size mismatch (2696/2440)',
    'CPU xfeatures has unsupported bits (0x20000)',
  ].map((message) => ({
    what: `another CPU: ${message}`,
    lines: [`(00.05) Error (criu/cpu.c:401): cpu: ${message}`],
    reason: /CPU lacks features/,
    hint: /same or newer/,
  })),
  {
    what: 'a device',
    lines: ["(00.1) Error (criu/files-ext.c:98): Can't dump file 7 of that type [20666] (chr 195:255)"],
    reason: /device/,
    hint: /GPUs/,
  },
  {
    what: 'limits of a process of another user',
    lines: ["(00.1) Error (criu/cr-dump.c:301): Can't get rlimit 0: Operation not permitted"],
    reason: /other ids than root/,
    hint: /SYS_RESOURCE/,
  },
  {
    what: 'System V shared memory of a normal user',
    lines: [
      "(00.1) Error (criu/ipc_ns.c:384): Can't stat map_files: Operation not permitted",
      '(00.1) Error (criu/ipc_ns.c:533): Failed to write IPC namespace data',
    ],
    reason: /System V shared memory segment, which cannot be saved for a normal user/,
    hint: /run as root/,
  },
  {
    what: 'System V shared memory of the machine’s',
    lines: ["(00.1) Error (criu/cr-dump.c:1): Task 1000 with SysVIPC shmem map @7f00 doesn't live in IPC ns"],
    reason: 'process 1000 has a System V shared memory segment, and no IPC namespace of its own',
    hint: /--no-container/,
  },
  {
    what: 'a full disk',
    lines: ['(00.1) Error (criu/bfd.c:271): bfd: Error flushing image: No space left on device'],
    reason: /no space is left/,
  },
  ...[
    'failed to suspend seccomp, restore will probably fail...',
    "couldn't suspend seccomp: Operation not permitted",
  ].map((message) => ({
    what: `seccomp: ${message}`,
    lines: [`(00.1) Error (compel/src/lib/infect.c:301): ${message}`],
    reason: /seccomp filter/,
    hint: /unconfined/,
  })),
];

describe('the cause in CRIU’s log', () => {
  test.each(KNOWN)('$what', ({ lines, reason, hint, passing }) => {
    const cause = causeInLog(log(...lines));
    if (typeof reason === 'string') expect(cause?.reason).toBe(reason);
    else expect(cause?.reason).toMatch(reason);
    if (hint !== undefined) expect(cause?.hint).toMatch(hint);
    expect(cause?.passing ?? false).toBe(passing ?? false);
    // The line is CRIU's own, without time, PID and place, for search engines.
    expect(cause?.line).not.toMatch(/^\(|^\s*\d+:|Error \(/);
    expect(cause?.line).not.toBe('');
  });

  test('is the first error when none is known, however many follow', () => {
    const cause = causeInLog(
      log(
        '(00.1) pie: 1950: Error (criu/pie/parasite.c:588): send_fds failed (-22)',
        "(00.1) Error (criu/parasite-syscall.c:280): Can't retrieve FDs from socket",
        '(00.1) Error (criu/cr-dump.c:1545): Dump files (pid: 1950) failed with -1',
      ),
    );
    expect(cause).toEqual({ reason: 'send_fds failed (-22)', line: 'send_fds failed (-22)' });
  });

  test('is not a zombie in the tree, of which CRIU warns whatever fails', () => {
    const zombie =
      '(00.01) Warn  (compel/src/lib/infect.c:132): Unable to interrupt task: 1007 (Operation not permitted)';
    expect(causeInLog(log(zombie, '(00.1) Error (criu/mem.c:1): something new'))?.reason).toBe('something new');
    expect(
      causeInLog(log(zombie, '(00.1) Error (criu/pipes.c:490): The packetized mode for pipes is not supported yet'))
        ?.reason,
    ).toMatch(/packet-mode/);
  });

  test('is none in a log of harmless lines, an empty one, or one that is not there', () => {
    expect(causeInLog(log())).toBeUndefined();
    expect(causeInLog([...BEFORE].join('\n'))).toBeUndefined();
    expect(causeInLog('')).toBeUndefined();
    expect(findCause(join(makeDirectory(), 'dump.log'))).toBeUndefined();
  });

  test('is found in a file', () => {
    const path = join(makeDirectory(), 'dump.log');
    writeFileSync(path, log('(00.1) Error (criu/seize.c:763): Unexpected child 5'));
    expect(findCause(path)?.passing).toBe(true);
  });
});
