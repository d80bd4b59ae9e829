// SPDX-License-Identifier: Apache-2.0
// What cannot be frozen exactly is refused, with the process, the descriptor and a remedy, and the application runs on.
import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { withBed, type Bed, type Identity } from '../support/bed.js';
import { CASES } from '../support/cases.js';
import { checkLines } from '../support/lines.js';
import { fixture, PYTHON } from '../support/stage.js';
import type { Job } from '../support/job.js';
import type { Answer } from '../support/place.js';

/** After a refusal: an error that helps, nothing of CRIU left, no image, and an application that goes on to its proper end. */
async function expectRefusal(bed: Bed, job: Job, answer: Answer, what: RegExp): Promise<void> {
  expect(answer.code).toBe(170);
  expect(answer.stdout).toBe('');
  expect(answer.stderr).toMatch(/^Error: .+/m);
  expect(answer.stderr).toMatch(/^Try: .+/m);
  expect(answer.stderr).toMatch(what);
  expect(answer.stderr).toMatch(/\b(process|PID|pid)\b/);
  expect(job.running).toBe(true);
  await job.progresses(5);
  expect(bed.survivors().filter((p) => /\bcriu\b/.test(p.command))).toEqual([]);
  expect(bed.list('image').filter((name) => name.startsWith('manifest'))).toEqual([]);
}

/** What the README shows that `checkpoint` says to a normal user; what differs from case to case is left open. */
const shown = [
  ...readFileSync(join(process.cwd(), 'README.md'), 'utf8').matchAll(/^\|[^|]*\| `(cannot freeze [^`]*)` \|$/gm),
]
  .map(([, message]) => message ?? '')
  .map((message) =>
    message
      .replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
      .replace(/\b\d+\b/g, '\\d+')
      .replace(/sem\\\.\w+/, '[^ ]+'),
  );

test('the README shows four messages', () => {
  expect(shown).toHaveLength(4);
});

describe('as a normal user', () => {
  for (const one of CASES) {
    const refusal = one.refusedForUser;
    if (refusal === undefined) continue;
    test(`${one.name}: refused, twice, and it runs on`, async () => {
      await withBed('user', async (bed) => {
        const stopFile = bed.path('stop');
        const job = bed.run(
          await bed.place(),
          ['--image-url', `file:${bed.path('image')}`],
          one.command(bed, stopFile),
        );
        await job.ready('scratch');
        await job.progresses(3);
        for (let i = 0; i < 2; i += 1) {
          const answer = await job.checkpoint();
          await expectRefusal(bed, job, answer, refusal);
          // A zombie is a matter of the moment, and not in the README's table.
          if (one.name !== 'zombies') expect(answer.stderr).toMatch(new RegExp(`^Error: (${shown.join('|')})$`, 'm'));
        }
        writeFileSync(stopFile, '');
        expect(await job.ends()).toMatchObject({ code: 0 });
        checkLines(job.stdout);
      });
    }, 120_000);
  }
});

const COUNT = 'n=0; until [ -e "$0" ]; do echo $n; n=$((n+1)); sleep 0.1; done; echo done';
const within = (option: string): string[] => ['sh', '-c', `unshare ${option} sleep 60 & trap 'kill $!' EXIT; ${COUNT}`];

test.each([
  ['a process in a network', 'network', within('--net')],
  ['a process in a mount', 'mount', within('--mount')],
  ['a process in a user', 'user', within('--user')],
  ['the whole job in a mount', 'mount', ['unshare', '--mount', 'sh', '-c', COUNT]],
])(
  '%s namespace of its own: refused before an image is made that cannot be restored',
  async (_, kind, command) => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const job = bed.run(place, ['--image-url', `file:${bed.path('image')}`], [...command, bed.path('stop')]);
      await job.progresses(5);
      const what = new RegExp(`process \\d+ \\(.*\\): it is in a ${kind} namespace of its own`);
      await expectRefusal(bed, job, await job.checkpoint(['--allow-inexact']), what);
      writeFileSync(bed.path('stop'), '');
      expect(await job.ends()).toMatchObject({ code: 0 });
    });
  },
  60_000,
);

test('srun, whose tasks are not in the tree: refused while it runs, unless that is allowed', async () => {
  await withBed('user', async (bed) => {
    // Known by its name and program; what it does does not matter.
    const srun = bed.path('work', 'srun');
    copyFileSync('/bin/sleep', srun);
    const command = ['sh', '-c', `${srun} 60 & trap 'kill $!' EXIT; ${COUNT}`, bed.path('stop')];
    const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], command);
    await job.progresses(5);
    await expectRefusal(bed, job, await job.checkpoint(), /process \d+ \(srun\): srun would wait for ever for tasks/);
    const allowed = await job.checkpoint(['--leave-running', '--allow-inexact']);
    expect(allowed).toMatchObject({ code: 0 });
    expect(job.stderr).toMatch(/the image is not exact: \d+ \(srun\): srun would wait/);
    writeFileSync(bed.path('stop'), '');
    expect(await job.ends()).toMatchObject({ code: 0 });
  });
}, 60_000);

const device =
  ['/dev/fuse', '/dev/loop-control', '/dev/autofs', '/dev/rtc0'].find((path) => existsSync(path)) ?? '/dev/fuse';

/** Python that brings something about, then counts until its stop file exists. */
const counting = (bed: Bed, ...lines: string[]): string[] => [
  PYTHON,
  '-c',
  [
    'import ctypes, mmap, os, sys, time',
    'libc = ctypes.CDLL(None, use_errno=True)',
    ...lines,
    'n = 0',
    `while not os.path.exists('${bed.path('stop')}'):`,
    "    print(n, 'counts', flush=True); n += 1; time.sleep(0.05)",
    "print(n, 'done', flush=True)",
  ].join('\n'),
];

const MAPPED = [
  "path = os.environ['TMPDIR'] + '/mapped'; f = open(path, 'w+b'); f.write(bytes(8192)); f.flush()",
  'm = mmap.mmap(f.fileno(), 8192, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)',
];

const UNSAVABLE: readonly {
  readonly what: string;
  readonly as: readonly Identity[];
  readonly lines: readonly string[];
  readonly error: RegExp;
  readonly remedy: RegExp;
}[] = [
  {
    what: 'a device',
    as: ['root'],
    lines: [`f = open('${device}', 'rb', 0)`],
    error: new RegExp(
      `process 1000 \\(python3.*\\), descriptor \\d+: ${device} is open, a device that cannot be saved$`,
      'm',
    ),
    remedy: /close it before a checkpoint/,
  },
  {
    what: 'a child that is traced',
    as: ['root', 'user'],
    lines: [
      'p = os.fork()',
      'if p == 0:',
      '    import signal; libc.prctl(1, 9); time.sleep(600)',
      'if libc.ptrace(0x4206, p, None, None) != 0: raise SystemExit("ptrace failed")',
    ],
    error: /process \d+ \(python3.*\): it is traced by process 1000 \(python3.*\)$/m,
    remedy: /detach the debugger/,
  },
  {
    what: 'io_uring',
    as: ['root', 'user'],
    lines: [
      'fd = libc.syscall(425, 4, ctypes.create_string_buffer(120))',
      'if fd < 0: raise SystemExit("no io_uring here")',
    ],
    error: /process 1000 \(python3.*\), descriptor \d+: io_uring cannot be saved$/m,
    remedy: /UV_USE_IO_URING=0/,
  },
  {
    what: 'a seccomp filter of its own',
    as: ['user'],
    lines: [
      'import struct',
      "code = ctypes.create_string_buffer(struct.pack('=HBBI', 6, 0, 0, 0x7fff0000))",
      "program = ctypes.create_string_buffer(struct.pack('=H6xQ', 1, ctypes.addressof(code)))",
      'if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0): raise SystemExit("no seccomp")',
    ],
    error: /process 1000 \(python3.*\): it has a seccomp filter, which cannot be saved for a normal user$/m,
    remedy: /run as root/,
  },
  {
    what: 'a deleted file that it only reads, by a private mapping',
    as: ['user'],
    lines: [...MAPPED, 'os.unlink(path)'],
    error: /process 1000 \(python3.*\): it has the file \/\S+\/mapped mapped, which was deleted or replaced and cannot/,
    remedy: /run as root/,
  },
  {
    what: 'a replaced file, as an upgrade does it',
    as: ['user'],
    lines: [...MAPPED, "open(path + '.new', 'w').write('x' * 8192); os.rename(path + '.new', path)"],
    error: /process 1000 \(python3.*\): it has the file \/\S+\/mapped mapped, which was deleted or replaced and cannot/,
    remedy: /after an upgrade of a library start anew/,
  },
];

for (const { what, as, lines, error, remedy } of UNSAVABLE) {
  test.each(as)(
    `${what}: refused as %s, before CRIU has stopped anything`,
    async (identity) => {
      await withBed(identity, async (bed) => {
        const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], counting(bed, ...lines));
        await job.progresses(3);
        const answer = await job.checkpoint(['--allow-inexact']);
        await expectRefusal(bed, job, answer, error);
        expect(/^Try: (.*)/m.exec(answer.stderr)?.[1]).toMatch(remedy);
        // Of a CRIU that has failed there is a log.
        expect(bed.list('logs')).toEqual([]);
        writeFileSync(bed.path('stop'), '');
        expect(await job.ends()).toMatchObject({ code: 0 });
        checkLines(job.stdout);
      });
    },
    60_000,
  );
}

test('as root: a deleted file that is mapped comes back', async () => {
  await withBed('root', async (bed) => {
    const url = ['--image-url', `file:${bed.path('image')}`];
    const command = counting(bed, ...MAPPED, 'os.unlink(path)');
    const job = bed.run(await bed.place(), url, command);
    await job.progresses(3);
    await job.freeze();
    const second = bed.run(await bed.place(), url, command);
    await second.ready('restored');
    await second.progresses(3);
    writeFileSync(bed.path('stop'), '');
    expect(await second.ends()).toMatchObject({ code: 0 });
    checkLines(job.stdout + second.stdout);
  });
}, 60_000);

const PERIODIC =
  /process 1000 \(python3.*\), descriptor \d+: a periodic timerfd has expired and was not read: it would/;
const STATES: readonly {
  readonly kind: string;
  readonly state: string;
  readonly refusal: RegExp;
  /** Where it is exact instead. */
  readonly exactAs?: Identity;
}[] = [
  { kind: 'timerfd', state: 'an expired periodic timerfd that was not read', refusal: PERIODIC },
  {
    kind: 'eventfd',
    state: 'an eventfd with EFD_SEMAPHORE',
    refusal: /process 1000 \(python3.*\), descriptor \d+: an eventfd in semaphore mode would lose that mode$/m,
  },
  {
    kind: 'zombie',
    state: 'a zombie that exited with 255',
    refusal: /process \d+ \(python3.*\): it is a zombie with exit code 255, of which CRIU would bring back 127$/m,
  },
  {
    kind: 'packet',
    state: 'a pipe in packet mode with packets in it',
    refusal: /process 1000 \(python3.*\), descriptor \d+: a pipe in packet mode \(O_DIRECT\) cannot be saved$/m,
  },
  {
    kind: 'memfd',
    state: 'a memfd that is mapped and open',
    refusal: /process 1000 \(python3.*\), descriptor \d+: a memfd that is also mapped shared would come back as two/,
    exactAs: 'root',
  },
];

for (const identity of ['root', 'user'] as const satisfies readonly Identity[]) {
  describe(`as ${identity}: what CRIU brings back inexactly`, () => {
    for (const { kind, state, refusal, exactAs } of STATES) {
      test(`${state}: ${exactAs === identity ? 'exact' : 'refused and it runs on'}`, async () => {
        await withBed(identity, async (bed) => {
          const [stopFile, go, url] = [bed.path('stop'), bed.path('go'), `file:${bed.path('image')}`];
          const command = [PYTHON, fixture('inexact.py'), stopFile, kind, go];
          let job = bed.run(await bed.place(), ['--image-url', url], command);
          await job.ready('scratch');
          await job.prints(/^0 holding/m);
          const answer = await job.checkpoint();
          let output = '';
          if (exactAs === identity) {
            expect(answer.code).toBe(0);
            expect(await job.ends()).toMatchObject({ code: 137 });
            output = job.stdout;
            job = bed.run(await bed.place({ clockOffsetS: 3000 }), ['--image-url', url], command);
            await job.ready('restored');
          } else {
            await expectRefusal(bed, job, answer, refusal);
          }
          // Now it looks at what it holds: exact, either way.
          writeFileSync(go, '');
          await job.prints(/ exact$/m);
          writeFileSync(stopFile, '');
          expect(await job.ends()).toMatchObject({ code: 0 });
          checkLines(output + job.stdout);
        });
      }, 120_000);
    }
  });
}
