// SPDX-License-Identifier: Apache-2.0
// What a process is to the kernel comes back: CPUs that its threads may use, ids, capabilities, filters, its program.
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { expect, test } from '@jest/globals';
import { manifestName } from '../../src/image/names.js';
import { USER_ID, withBed, type Bed } from '../support/bed.js';
import type { Job } from '../support/job.js';
import { checkLines } from '../support/lines.js';
import { fixture, PYTHON } from '../support/stage.js';

const url = (bed: Bed): string[] => ['--image-url', `file:${bed.path('image')}`];

/** Freezes the job, continues it elsewhere until it has looked some more, and lets it end. */
async function continues(bed: Bed, job: Job, command: readonly string[]): Promise<string> {
  await job.progresses(3);
  await job.freeze();
  const second = bed.run(await bed.place({ clockOffsetS: 5000 }), url(bed), command);
  await second.ready('restored');
  await second.progresses(5);
  writeFileSync(bed.path('stop'), '');
  expect(await second.ends()).toMatchObject({ code: 0 });
  checkLines(job.stdout + second.stdout);
  expect(second.stderr).not.toMatch(/VIOLATION/);
  return job.stdout + second.stdout;
}

test.each(['root', 'user'] as const)(
  'as %s: pinned threads and processes are pinned when they run again',
  async (identity) => {
    await withBed(identity, async (bed) => {
      const command = [PYTHON, fixture('pinned.py'), bed.path('stop')];
      const job = bed.run(await bed.place(), url(bed), command);
      await job.prints(/pinned/);
      await job.progresses(3);
      const { app } = JSON.parse(await frozen(bed, job)) as { app: { affinity: { cpus: string }[] } };
      expect(app.affinity).toHaveLength(availableParallelism() === 1 ? 0 : 3);
      const second = bed.run(await bed.place(), url(bed), command);
      await second.ready('restored');
      await second.progresses(5);
      expect(second.stderr).not.toMatch(/which this machine does not have/);
      writeFileSync(bed.path('stop'), '');
      expect(await second.ends()).toMatchObject({ code: 0 });
      checkLines(job.stdout + second.stdout);
    });
  },
  60_000,
);

/** Stops the job by a checkpoint; the manifest of the image. */
async function frozen(bed: Bed, job: Job): Promise<string> {
  await job.freeze();
  return readFileSync(bed.path('image', manifestName(1)), 'utf8');
}

test('CPUs that this machine does not have: a warning, and the thread may use any', async () => {
  await withBed('root', async (bed) => {
    const command = ['sh', fixture('shell-loop.sh'), bed.path('stop')];
    const job = bed.run(await bed.place(), url(bed), command);
    await job.progresses(3);
    const text = (await frozen(bed, job)).replace(
      /"affinity": \[[^\]]*\]/,
      '"affinity": [{"tid": 1000, "cpus": "4000-4003"}]',
    );
    const body = text.slice(0, text.lastIndexOf(',\n  "checksum"'));
    const checksum = createHash('sha256').update(body).digest('hex');
    writeFileSync(bed.path('image', manifestName(1)), `${body},\n  "checksum": "${checksum}"\n}\n`);
    const second = bed.run(await bed.place(), url(bed), command);
    await second.ready('restored');
    expect(second.stderr).toMatch(/thread 1000 ran on CPUs 4000-4003 only, which this machine does not have/);
    writeFileSync(bed.path('stop'), '');
    expect(await second.ends()).toMatchObject({ code: 0 });
  });
}, 60_000);

/** ptrace: what deny.py forbids, by number. */
const PTRACE = '101';

test('as root: capabilities, no_new_privs and a seccomp filter of its own, which still forbids', async () => {
  await withBed('root', async (bed) => {
    const filtered = [PYTHON, fixture('deny.py'), 'ptrace', PYTHON, fixture('same.py'), bed.path('stop'), PTRACE];
    const command = ['setpriv', '--inh-caps=-all,+kill', '--bounding-set=-all,+chown,+kill', ...filtered];
    const output = await continues(bed, bed.run(await bed.place(), url(bed), command), command);
    // CAP_CHOWN is 0, CAP_KILL 5.
    expect(output).toMatch(/CapEff 0000000000000021\n/);
    expect(output).toMatch(/CapBnd 0000000000000021\n/);
    expect(output).toMatch(/NoNewPrivs 1\n.*Seccomp 2\n/);
  });
}, 60_000);

test.each(['root', 'user'] as const)(
  'as %s: /proc/PID/exe is its own program',
  async (identity) => {
    await withBed(identity, async (bed) => {
      const command = [PYTHON, fixture('same.py'), bed.path('stop')];
      const output = await continues(bed, bed.run(await bed.place(), url(bed), command), command);
      expect(output.startsWith(`0 ${realpathSync(PYTHON)}\n`)).toBe(true);
    });
  },
  60_000,
);

/** A set-uid root copy of a program, which everybody may run. */
function setUid(bed: Bed, program: string): string {
  const path = bed.path('set-uid');
  copyFileSync(realpathSync(program), path);
  chmodSync(path, 0o4755);
  return path;
}

/** CAP_SYS_RESOURCE, in the mask of capabilities. Few containers give it to root. */
const mayReadLimits =
  (Number.parseInt(/^CapEff:\s*(\w+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0', 16) & (1 << 24)) !==
  0;

test(`as root: a set-uid program that a normal user has started ${mayReadLimits ? 'comes back with all its ids' : 'is refused with the capability that is missing'}`, async () => {
  await withBed('root', async (bed) => {
    const drop = ['setpriv', `--reuid=${USER_ID}`, `--regid=${USER_ID}`, '--clear-groups'];
    const command = [...drop, setUid(bed, PYTHON), fixture('same.py'), bed.path('stop')];
    const job = bed.run(await bed.place(), url(bed), command);
    await job.prints(new RegExp(`Uid ${USER_ID} 0 0 0\n`));
    if (mayReadLimits) {
      await continues(bed, job, command);
      return;
    }
    const answer = await job.checkpoint();
    expect(answer.code).toBe(170);
    expect(answer.stderr).toMatch(
      /^Error: cannot freeze process 1000 \(set-uid\): it has other ids \(64001, effective 0\) than root, and reading its limits needs CAP_SYS_RESOURCE$/m,
    );
    expect(answer.stderr).toMatch(/^Try: .*--cap-add SYS_RESOURCE/m);
    expect(bed.list('logs')).toEqual([]);
    await job.progresses(3);
    writeFileSync(bed.path('stop'), '');
    expect(await job.ends()).toMatchObject({ code: 0 });
  });
}, 60_000);

test('as a normal user: a set-uid program has no other rights than its caller', async () => {
  await withBed('user', async (bed) => {
    const [secret, program] = [bed.path('secret'), setUid(bed, '/bin/cat')];
    writeFileSync(secret, 'for root\n', { mode: 0o600 });
    const place = await bed.place();
    // It would be, outside of a job.
    expect(await place.exec([program, secret])).toMatchObject({ code: 0, stdout: 'for root\n' });
    const job = bed.run(place, url(bed), [program, secret]);
    expect(await job.ends()).toMatchObject({ code: 1 });
    expect(job.stderr).toMatch(/secret: Permission denied/);
  });
}, 60_000);
