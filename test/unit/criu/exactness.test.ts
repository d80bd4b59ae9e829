// SPDX-License-Identifier: Apache-2.0
/* Real processes of this machine, stopped as CRIU would have them, and looked at through /proc. */
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readTree } from '../../../src/container/tree.js';
import { refuseInexactState } from '../../../src/criu/exactness.js';
import type { FastFreezeError } from '../../../src/base/errors.js';
import { until } from '../../support/until.js';
import { within } from '../linux/support.js';

const started: ChildProcess[] = [];
afterEach(async () => {
  for (const child of started.splice(0)) {
    const ended = once(child, 'exit');
    process.kill(-(child.pid ?? 0), 'SIGKILL');
    await within('the end', ended);
  }
});

const PRELUDE = `
import ctypes, mmap, os, select, signal, struct, sys, time
c = ctypes.CDLL(None, use_errno=True)
def stay(*fds):
    print("ready", *fds, flush=True)
    while True: time.sleep(60)
def timer(value_ns, interval_ns):
    fd = c.timerfd_create(1, 0)
    c.timerfd_settime(fd, 0, struct.pack("qqqq", 0, interval_ns, 0, value_ns), None)
    return fd
`;

jest.setTimeout(30_000);

/** A Python program, stopped once it has said that it is ready. */
async function stopped(program: string): Promise<{ pid: number; fds: number[] }> {
  const child = spawn('python3', ['-c', PRELUDE + program], { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  started.push(child);
  let said = '';
  child.stdout.on('data', (piece: Buffer) => (said += piece.toString()));
  await until('the program', () => said.includes('\n'), 10_000);
  const pid = child.pid ?? 0;
  process.kill(-pid, 'SIGSTOP');
  await until('it to stop', () => readTree(pid).every((one) => ['T', 'Z'].includes(one.state)), 5_000);
  return { pid, fds: said.trim().split(' ').slice(1).map(Number) };
}

/** The refusal of a program's tree, or undefined when it is accepted. */
async function refusal(
  program: string,
  privileged: boolean,
): Promise<{ error: FastFreezeError | undefined; pid: number; fds: number[] }> {
  const { pid, fds } = await stopped(program);
  try {
    refuseInexactState(readTree(pid), privileged);
    return { error: undefined, pid, fds };
  } catch (error) {
    return { error: error as FastFreezeError, pid, fds };
  }
}

describe('state that CRIU would bring back changed', () => {
  test.each([
    ['an eventfd in semaphore mode', 'stay(c.eventfd(3, 1))', /semaphore mode/, false],
    [
      'a periodic timerfd that has expired',
      'fd = timer(1000000, 1000000)\nselect.select([fd], [], [])\nstay(fd)',
      /never fire again/,
      true,
    ],
    [
      'an inotify event that was not read',
      'import tempfile\nd = tempfile.TemporaryDirectory()\nfd = c.inotify_init1(0)\nc.inotify_add_watch(fd, d.name.encode(), 0x100)\nopen(d.name + "/f", "w").close()\nd.cleanup()\nstay(fd)',
      /would be forgotten/,
      true,
    ],
    ['a pipe in packet mode', 'r, w = os.pipe2(os.O_DIRECT)\nstay(w)', /packet mode/, false],
    [
      'one of a child',
      'r, w = os.pipe()\nif os.fork() == 0:\n    fd = c.eventfd(0, 1)\n    os.write(w, b"x")\n    stay(fd)\nos.read(r, 1)\nos.close(1)\ntime.sleep(60)',
      /semaphore mode/,
      false,
    ],
  ])('%s is refused, with process, descriptor and remedy', async (what, program, reason, passing) => {
    const { error, pid, fds } = await refusal(program, true);
    expect(error).toMatchObject({ code: 'unsupported', passing, reason: expect.stringMatching(reason) as unknown });
    expect(error?.subject).toContain(`descriptor ${fds[0] ?? -1}`);
    if (what !== 'one of a child') expect(error?.subject).toMatch(new RegExp(`^${pid} \\(python3?`));
    expect(error?.hint).toBeTruthy();
  });

  test('a zombie of exit code 200 is refused for now, and says what would come back', async () => {
    const { error } = await refusal(
      'pid = os.fork()\nif pid == 0: os._exit(200)\nos.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\nstay()',
      true,
    );
    expect(error).toMatchObject({ code: 'unsupported', passing: true });
    expect(error?.reason).toMatch(/exit code 200.*bring back 72/);
  });

  test('a memfd that is mapped shared and open is refused to a normal user only', async () => {
    const program = `
fd = os.memfd_create("shared")
os.ftruncate(fd, 8192)
m = mmap.mmap(fd, 8192, mmap.MAP_SHARED)
stay(fd)`;
    const { pid, fds } = await stopped(program);
    const tree = readTree(pid);
    expect(() => refuseInexactState(tree, true)).not.toThrow();
    // Python's mmap keeps a duplicate of its own: either is named.
    expect(() => refuseInexactState(tree, false)).toThrow(/two separate objects/);
    expect(fds.length).toBe(1);
  });

  test('an io_uring is refused, with the remedy for Node.js', async () => {
    const { pid, fds } = await stopped('stay(c.syscall(425, 8, ctypes.create_string_buffer(256)))');
    // A kernel that has io_uring switched off has none to find.
    const expected = (fds[0] ?? -1) >= 0 ? /UV_USE_IO_URING/ : /^$/;
    let hint = '';
    try {
      refuseInexactState(readTree(pid), true);
    } catch (error) {
      hint = (error as FastFreezeError).hint ?? '';
    }
    expect(hint).toMatch(expected);
  });
});

describe('state that comes back as it was', () => {
  test.each([
    ['a plain eventfd', 'stay(c.eventfd(3, 0))'],
    ['a periodic timerfd that waits', 'stay(timer(3600 * 10**9, 10**9))'],
    ['a timerfd that has expired for good', 'fd = timer(1000000, 0)\nselect.select([fd], [], [])\nstay(fd)'],
    ['a timerfd that is not armed', 'stay(timer(0, 0))'],
    ['a plain pipe', 'stay(*os.pipe())'],
    ['the reading end of a packet-mode pipe alone', 'r, w = os.pipe2(os.O_DIRECT)\nos.close(w)\nstay(r)'],
    [
      'a zombie of code 127',
      'pid = os.fork()\nif pid == 0: os._exit(127)\nos.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\nstay()',
    ],
    ['a memfd that is only open', 'stay(os.memfd_create("open"))'],
    [
      'a memfd that is mapped privately',
      'fd = os.memfd_create("p")\nos.ftruncate(fd, 4096)\nm = mmap.mmap(fd, 4096, mmap.MAP_PRIVATE)\nstay(fd)',
    ],
    [
      'files, sockets and epoll',
      'import socket\nkeep = [open("/dev/null"), *socket.socketpair(), select.epoll()]\nstay()',
    ],
  ])('%s is accepted', async (_, program) => {
    expect((await refusal(program, false)).error).toBeUndefined();
  });

  test('an inotify watch whose events were read is accepted for root', async () => {
    const program = 'fd = c.inotify_init1(0)\nc.inotify_add_watch(fd, b"/proc/self", 0x100)\nstay(fd)';
    expect((await refusal(program, true)).error).toBeUndefined();
  });

  test('a zombie of a signal is accepted for root, and refused for a normal user', async () => {
    const program =
      'pid = os.fork()\nif pid == 0: os.kill(os.getpid(), 9)\nos.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\nstay()';
    expect((await refusal(program, true)).error).toBeUndefined();
    expect((await refusal(program, false)).error).toMatchObject({ code: 'unsupported', passing: true });
  });

  test('a tree that has gone is accepted: CRIU will say so', () => {
    const process = { pid: 2 ** 22 - 1, name: 'gone', state: 'S', exitCode: 0 };
    expect(() => refuseInexactState([process], false)).not.toThrow();
  });
});
