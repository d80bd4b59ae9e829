// SPDX-License-Identifier: Apache-2.0
// `doctor PID`: what a checkpoint would refuse is told of a process that runs, which goes on undisturbed.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed, type Identity } from '../support/bed.js';
import type { Place } from '../support/place.js';
import { descendantsOf, inspect, signalPid } from '../support/processes.js';
import { fixture, PYTHON } from '../support/stage.js';
import { until } from '../support/until.js';

interface Report {
  readonly ok: boolean;
  readonly rows: readonly {
    readonly name: string;
    readonly status: string;
    readonly detail: string;
    readonly remedy?: string;
  }[];
}

type Start = (words: readonly string[]) => Promise<number>;

/** A place of the identity's, and a way to start programs there: `start` resolves to the PID once the program has said its first word. */
async function at(identity: Identity, action: (bed: Bed, place: Place, start: Start) => Promise<void>): Promise<void> {
  await withBed(identity, async (bed) => {
    const place = await bed.place();
    const started: number[] = [];
    const start: Start = async (words) => {
      const child = place.start(words);
      let said = '';
      child.stdout?.on('data', (data: Buffer) => (said += data.toString()));
      child.stderr?.on('data', (data: Buffer) => (said += data.toString()));
      if (child.pid === undefined) throw new Error('not started');
      started.push(child.pid);
      await until(
        'its first word',
        () => /holding|ready/.test(said),
        15_000,
        () => said,
      );
      return child.pid;
    };
    try {
      await action(bed, place, start);
    } finally {
      for (const pid of started) for (const one of [...descendantsOf(pid), pid]) signalPid(one, 'SIGKILL');
    }
  });
}

async function look(place: Place, pid: number, as?: 'root' | 'user'): Promise<{ code: number; report: Report }> {
  const answer = await place.fastfreeze(['doctor', '--json', String(pid)], as === undefined ? {} : { as });
  if (!answer.stdout.startsWith('{')) throw new Error(`${answer.code}: ${answer.stderr}`);
  return { code: answer.code, report: JSON.parse(answer.stdout) as Report };
}

const held = (bed: Bed, kind: string): string[] => [
  PYTHON,
  fixture('inexact.py'),
  bed.path('stop'),
  kind,
  bed.path('go'),
];

/** Python that brings about a state, then waits. */
const python = (...lines: string[]): string[] => [
  PYTHON,
  '-c',
  [...lines, "print('ready', flush=True)", 'import time; time.sleep(60)'].join('\n'),
];

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    test.each([
      ['timerfd', 'warn', /descriptor \d+: a periodic timerfd has expired/],
      ['eventfd', 'fail', /descriptor \d+: an eventfd in semaphore mode/],
      ['zombie', 'warn', /a zombie with exit code 255/],
      ['packet', 'fail', /descriptor \d+: a pipe in packet mode/],
    ])(
      'a %s that a checkpoint would refuse: %s',
      async (kind, status, detail) => {
        await at(identity, async (bed, place, start) => {
          const pid = await start(held(bed, kind));
          const { code, report } = await look(place, pid);
          expect(report.rows[0]).toMatchObject({ name: 'process', status: 'ok' });
          expect(report.rows.slice(1)).toMatchObject([
            { name: 'state', status, detail: expect.stringMatching(detail) as unknown },
          ]);
          expect(report.rows[1]?.remedy).toEqual(expect.stringMatching(/\w+/));
          expect([report.ok, code]).toEqual(status === 'fail' ? [false, 170] : [true, 0]);
          // Neither stopped nor ended.
          expect(['S', 'R', 'D']).toContain(inspect(pid)?.state);
        });
      },
      30_000,
    );

    test('a process with nothing of the kind can be frozen, its children counted', async () => {
      await at(identity, async (bed, place, start) => {
        const pid = await start(['sh', '-c', 'sleep 60 & sleep 60 & echo ready; wait']);
        const answer = await place.fastfreeze(['doctor', String(pid)]);
        expect(answer.code).toBe(0);
        expect(answer.stdout).toMatch(
          /^ok +process +\d+ \(sh\): 3 processes, 3 threads, \d+\.\d MiB resident\n\nNothing is seen/,
        );
      });
    }, 30_000);

    test('established connections are told of, System V memory is refused to a normal user', async () => {
      await at(identity, async (bed, place, start) => {
        const pid = await start(
          python(
            'import ctypes, socket',
            "a = socket.create_server(('127.0.0.1', 0)); b = socket.create_connection(a.getsockname()); c = a.accept()",
            'libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p',
            'i = libc.shmget(0, 4096, 0o1600); libc.shmat(i, None, 0); libc.shmctl(i, 0, None)',
          ),
        );
        const { code, report } = await look(place, pid);
        expect(code).toBe(identity === 'root' ? 0 : 170);
        const memory = { name: 'memory', status: 'fail', detail: expect.stringContaining('System V') as unknown };
        expect(report.rows.slice(1)).toMatchObject([
          ...(identity === 'root' ? [] : [memory]),
          {
            name: 'connections',
            status: 'warn',
            detail: expect.stringContaining('2 established TCP connections') as unknown,
          },
        ]);
      });
    }, 30_000);

    test('files open for writing, sockets that lead outside and namespaces of its own are told, with what to do', async () => {
      await at(identity, async (bed, place, start) => {
        const path = bed.path('work', 'data');
        const pid = await start(
          python(
            'import os, socket, subprocess, sys',
            `f = open('${path}', 'w'); g = open('${path}.log', 'a'); h = open('/etc/passwd')`,
            `os.dup2(os.open('${path}.out', os.O_CREAT | os.O_WRONLY), 2)`,
            's, other = socket.socketpair()',
            "p = subprocess.Popen(['sleep', '60'], pass_fds=[other.fileno()])",
            "q = subprocess.Popen(['unshare', '--user', 'sleep', '60']); other.close()",
          ),
        );
        await until('its children', () => descendantsOf(pid).length === 2);
        const seen = async (of: number) => (await look(place, of)).report.rows.slice(1);
        await until('the namespace', async () => (await seen(pid)).some(({ name }) => name === 'namespace'));
        expect(await seen(pid)).toMatchObject([
          {
            name: 'namespace',
            status: 'fail',
            detail: expect.stringMatching(/^\d+ \(\w+\): it is in a user namespace of its own/) as unknown,
          },
          { name: 'output', status: 'warn', detail: expect.stringContaining(`${path}.out`) as unknown },
          {
            name: 'files',
            status: 'warn',
            detail: expect.stringMatching(`^${path}, ${path}.log: open for writing`) as unknown,
            remedy: expect.stringContaining('--preserve-open-files') as unknown,
          },
        ]);
        // Its own socket leads to its child; that of the child leads out of the child's tree.
        const below = await Promise.all(descendantsOf(pid).map(seen));
        expect(below.flat()).toContainEqual(
          expect.objectContaining({
            name: 'sockets',
            status: 'warn',
            detail: expect.stringContaining('1 UNIX socket connected to processes outside') as unknown,
          }),
        );
      });
    }, 60_000);

    test('a process that is traced is refused, with its tracer', async () => {
      await at(identity, async (bed, place, start) => {
        const pid = await start(
          python(
            'import ctypes, os, time',
            'p = os.fork()',
            'if p == 0:',
            '    time.sleep(60)',
            'libc = ctypes.CDLL(None)',
            'if libc.ptrace(16, p, None, None) != 0: raise SystemExit("ptrace failed")',
          ),
        );
        const { code, report } = await look(place, pid);
        expect(code).toBe(170);
        expect(report.rows).toContainEqual(
          expect.objectContaining({
            name: 'tracing',
            status: 'fail',
            detail: expect.stringContaining(`is traced by process ${pid}`) as unknown,
          }),
        );
      });
    }, 30_000);
  });
}

const IO_URING = [
  'import ctypes; libc = ctypes.CDLL(None)',
  'if libc.syscall(425, 4, ctypes.create_string_buffer(120)) < 0: raise SystemExit("no io_uring here")',
];
const SECCOMP = [
  'import ctypes, struct; libc = ctypes.CDLL(None)',
  "code = ctypes.create_string_buffer(struct.pack('=HBBI', 6, 0, 0, 0x7fff0000))",
  "program = ctypes.create_string_buffer(struct.pack('=H6xQ', 1, ctypes.addressof(code)))",
  'if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0): raise SystemExit("no")',
];
const INOTIFY = [
  'import ctypes, os; libc = ctypes.CDLL(None)',
  "if libc.inotify_add_watch(libc.inotify_init1(0), os.environ['HOME'].encode(), 0x400) < 0: raise SystemExit('no')",
];
const MEMFD = ['import mmap, os', "fd = os.memfd_create('held'); os.ftruncate(fd, 4096); area = mmap.mmap(fd, 4096)"];
const SIGNAL_ZOMBIE = [
  'import os, signal',
  'p = os.fork()',
  'if p == 0: os.kill(os.getpid(), 9)',
  'import time; time.sleep(0.2)',
];
const PRIVATE = [
  'import mmap, os',
  "path = os.environ['TMPDIR'] + '/mapped'; f = open(path, 'w+b'); f.write(bytes(8192)); f.flush()",
  'm = mmap.mmap(f.fileno(), 8192, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ); f.close(); os.unlink(path)',
];
const QUEUE = [
  'import ctypes, os; libc = ctypes.CDLL(None)',
  "name = b'/ff-look-%d' % os.getpid()",
  'if libc.mq_open(name, 0o102, 0o600, None) < 0 or libc.mq_unlink(name) < 0: raise SystemExit("no queue")',
];
const SEMAPHORES = [
  'import ctypes; libc = ctypes.CDLL(None)',
  's = libc.semget(0, 1, 0o1600); libc.semctl(s, 0, 16, 1)',
  'import atexit, signal, sys; atexit.register(lambda: libc.semctl(s, 0, 0)); signal.signal(15, lambda *_: sys.exit())',
];

interface Seen {
  readonly name: string;
  readonly status: string;
  readonly detail: RegExp;
}
const NOTHING: readonly Seen[] = [];
const fails = (name: string, detail: RegExp): Seen[] => [{ name, status: 'fail', detail }];
const warns = (name: string, detail: RegExp): Seen[] => [{ name, status: 'warn', detail }];

test.each([
  ['io_uring', IO_URING, ...both(fails('state', /descriptor \d+: io_uring cannot be saved/))],
  ['a seccomp filter', SECCOMP, fails('seccomp', /it has a seccomp filter/), NOTHING],
  ['watches of inotify', INOTIFY, fails('state', /descriptor \d+: watches of inotify/), NOTHING],
  ['a memfd, mapped and open', MEMFD, fails('state', /descriptor \d+: a memfd that is also mapped shared/), NOTHING],
  ['a zombie of a signal', SIGNAL_ZOMBIE, warns('state', /it is a zombie that died of signal 9/), NOTHING],
  [
    'a deleted file, privately mapped',
    PRIVATE,
    fails('memory', /mapped mapped, which was deleted or replaced/),
    NOTHING,
  ],
  ['a POSIX message queue', QUEUE, ...both(fails('queue', /descriptor \d+: the POSIX message queue \/ff-look-\d+ /))],
  ['System V semaphores', SEMAPHORES, ...both(warns('semaphores', /uses System V semaphores \(set \d+\)/))],
] as const)(
  '%s: what a normal user is told of it, and root',
  async (_, lines, user, root) => {
    await at('user', async (_bed, place, start) => {
      const pid = await start(python(...lines));
      for (const [as, seen] of [
        ['user', user],
        ['root', root],
      ] as const) {
        const { report } = await look(place, pid, as);
        const rows = report.rows.filter(({ name }) => !['process', 'files'].includes(name));
        const expected = seen.map((one) => ({ ...one, detail: expect.stringMatching(one.detail) }));
        expect(rows).toMatchObject(expected);
        expect(report.ok).toBe(!seen.some(({ status }) => status === 'fail'));
      }
      signalPid(pid, 'SIGTERM');
      await until('its end', () => inspect(pid) === undefined);
    });
  },
  30_000,
);

function both(seen: Seen[]): [Seen[], Seen[]] {
  return [seen, seen];
}

test('what a normal user cannot bring back is told to it, not to root; what is another’s it may not see', async () => {
  await at('user', async (bed, place, start) => {
    const pid = await start(
      python(
        'import mmap, os, tempfile',
        `f = open('${bed.path('work', 'gone')}', 'w+b'); f.write(bytes(8192)); f.flush()`,
        'm = mmap.mmap(f.fileno(), 8192); os.unlink(f.name)',
      ),
    );
    const mine = await look(place, pid);
    expect(mine.code).toBe(170);
    expect(mine.report.rows.slice(1)).toMatchObject([
      {
        name: 'memory',
        detail: expect.stringMatching(/the file .*gone mapped, which was deleted or replaced/) as unknown,
      },
    ]);
    expect((await look(place, pid, 'root')).report.ok).toBe(true);
    const stranger = spawn('sleep', ['30'], { stdio: 'ignore' });
    try {
      const refused = await place.fastfreeze(['doctor', String(stranger.pid)]);
      expect(refused.code).toBe(170);
      expect(refused.stderr).toMatch(/process \d+ \(sleep\): it is not ours to look at\nTry: ask as its user/);
    } finally {
      stranger.kill('SIGKILL');
    }
  });
}, 30_000);

/** One that is on nearly every machine, and no memory or terminal. */
const device =
  ['/dev/fuse', '/dev/loop-control', '/dev/autofs', '/dev/rtc0'].find((path) => existsSync(path)) ?? '/dev/fuse';

test('a device is refused; what is no PID, and a process that is none', async () => {
  await at('root', async (bed, place, start) => {
    const pid = await start(python(`f = open('${device}', 'rb', 0); g = open('/dev/null'); h = open('/dev/urandom')`));
    const { report } = await look(place, pid);
    expect(report.rows.slice(1)).toMatchObject([
      { name: 'device', status: 'fail', detail: expect.stringContaining(`${device} is open`) as unknown },
    ]);
    const wrong = await place.fastfreeze(['doctor', 'init']);
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain('"init" is no PID');
    const none = await place.fastfreeze(['doctor', '4194999']);
    expect(none.code).toBe(170);
    expect(none.stderr).toMatch(/process 4194999: there is none\nTry: /);
  });
}, 30_000);
