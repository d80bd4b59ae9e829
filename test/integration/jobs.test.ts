// SPDX-License-Identifier: Apache-2.0
// The commands and their options, with real jobs.
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { spoolUrl } from '../../src/engine/spool.js';
import { listGenerations } from '../../src/image/generations.js';
import { tryLock } from '../../src/linux/flock.js';
import { openStore } from '../../src/store/store.js';
import { withBed, type Bed } from '../support/bed.js';
import { GcsFake } from '../support/gcs-fake.js';
import { checkNames, generations } from '../support/image.js';
import { inTurn } from '../support/in-turn.js';
import { checkLines } from '../support/lines.js';
import { descendantsOf, inspect } from '../support/processes.js';
import { fastfreeze, fixture, homeOf, PYTHON } from '../support/stage.js';
import { sleep, until } from '../support/until.js';

const loop = (bed: Bed, stop = 'stop'): string[] => ['sh', fixture('shell-loop.sh'), bed.path(stop)];
const url = (bed: Bed, name = 'image'): string[] => ['--image-url', `file:${bed.path(name)}`];

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    const it = inTurn(identity);
    test('several jobs side by side, named; without a name the error lists them', async () => {
      await withBed(identity, async (bed) => {
        const place = await bed.place();
        const names = ['alpha', 'beta', 'gamma'];
        const jobs = names.map((name) =>
          bed.run(place, [...url(bed, name), '--container', name], loop(bed, `stop-${name}`)),
        );
        for (const job of jobs) await job.ready('scratch');
        for (const job of jobs) await job.progresses(2);

        const ambiguous = await place.fastfreeze(['checkpoint']);
        expect(ambiguous.code).not.toBe(0);
        for (const name of names) expect(ambiguous.stderr).toContain(name);

        const status = await place.fastfreeze(['status', '--json']);
        expect(status.code).toBe(0);
        for (const name of names) expect(status.stdout).toContain(`"${name}"`);
        JSON.parse(status.stdout);

        const unknown = await place.fastfreeze(['checkpoint', 'delta']);
        expect(unknown.code).not.toBe(0);
        expect(unknown.stderr).toMatch(/^Error: .*delta/m);

        const second = bed.run(place, [...url(bed, 'other'), '--container', 'beta'], loop(bed));
        expect((await second.ends()).code).toBe(170);
        expect(second.stderr).toMatch(/beta/);

        // By flag and by position; the third goes on untouched.
        expect(await place.fastfreeze(['checkpoint', '--container', 'alpha'])).toMatchObject({ code: 0 });
        expect(await place.fastfreeze(['checkpoint', 'beta'])).toMatchObject({ code: 0 });
        expect((await jobs[0]?.ends())?.code).toBe(137);
        expect((await jobs[1]?.ends())?.code).toBe(137);
        await jobs[2]?.progresses(3);
        // Now only one is left: no name is needed.
        expect(await place.fastfreeze(['checkpoint'])).toMatchObject({ code: 0 });
        expect((await jobs[2]?.ends())?.code).toBe(137);

        const elsewhere = await bed.place();
        for (const [index, name] of names.entries()) {
          const job = bed.run(elsewhere, [...url(bed, name), '--container', name], loop(bed, `stop-${name}`));
          await job.ready('restored');
          writeFileSync(bed.path(`stop-${name}`), '');
          expect(await job.ends()).toMatchObject({ code: 0 });
          checkLines((jobs[index]?.stdout ?? '') + job.stdout);
        }
      });
    }, 180_000);

    it('commands without a job say so', async () => {
      await withBed(identity, async (bed) => {
        const place = await bed.place();
        for (const command of ['checkpoint', 'wait']) {
          const answer = await place.fastfreeze(command === 'wait' ? ['wait', '-t', '1'] : [command]);
          expect(answer.code).not.toBe(0);
          expect(answer.stderr).toMatch(/^Error: .+/m);
        }
        const status = await place.fastfreeze(['status']);
        expect(status.stdout + status.stderr).toMatch(/no .*(job|application|running)/i);
      });
    }, 60_000);

    it('--image-base with --job-id is --image-url BASE/ID', async () => {
      await withBed(identity, async (bed) => {
        const first = bed.run(
          await bed.place(),
          ['--image-base', `file:${bed.path('base')}`, '--job-id', 'job-17'],
          loop(bed),
        );
        await first.ready('scratch');
        await first.progresses(2);
        await first.freeze();
        expect(generations(bed.path('base', 'job-17'))).toEqual([1]);
        const second = bed.run(await bed.place(), ['--image-url', `file:${bed.path('base', 'job-17')}`], loop(bed));
        await second.ready('restored');
        writeFileSync(bed.path('stop'), '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout);
      });
    }, 60_000);

    test('without an image URL there is a default one, and it is said', async () => {
      await withBed(identity, async (bed) => {
        const place = await bed.place();
        const first = bed.run(place, [], loop(bed));
        await first.ready('scratch');
        await first.progresses(2);
        const answer = await first.freeze();
        const where = /file:(\S+)/.exec(first.stderr + answer.stderr)?.[1];
        expect(where).toBeDefined();
        const second = bed.run(place, [], loop(bed));
        await second.ready('restored');
        writeFileSync(bed.path('stop'), '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout);
        bed.leavesState = true;
      });
    }, 60_000);

    it('a restore-only run needs no command; a different one is warned about and the image wins', async () => {
      await withBed(identity, async (bed) => {
        const first = bed.run(await bed.place(), url(bed), loop(bed));
        await first.progresses(2);
        await first.freeze();
        const second = bed.run(await bed.place(), url(bed), []);
        await second.ready('restored');
        await second.progresses(2);
        await second.freeze();
        const third = bed.run(await bed.place(), url(bed), ['sleep', '5']);
        await third.ready('restored');
        expect(third.stderr).toMatch(/warn.*(command|differ)|(command|differ).*warn/i);
        writeFileSync(bed.path('stop'), '');
        expect(await third.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout + third.stdout);
      });
    }, 60_000);

    it('--no-restore starts from scratch', async () => {
      await withBed(identity, async (bed) => {
        const first = bed.run(await bed.place(), url(bed), loop(bed));
        await first.progresses(2);
        await first.freeze();
        const second = bed.run(await bed.place(), [...url(bed), '--no-restore'], loop(bed));
        await second.ready('scratch');
        writeFileSync(bed.path('stop'), '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        checkLines(second.stdout);
      });
    }, 60_000);

    it('when the application has ended, a retry starts anew and says so', async () => {
      await withBed(identity, async (bed) => {
        const first = bed.run(await bed.place(), url(bed), loop(bed));
        await first.progresses(2);
        await first.freeze();
        const second = bed.run(await bed.place(), url(bed), loop(bed));
        await second.ready('restored');
        writeFileSync(bed.path('stop'), '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        const third = bed.run(await bed.place(), url(bed), loop(bed));
        await third.ready('scratch');
        expect(third.stderr).toMatch(/finished/i);
        expect(await third.ends()).toMatchObject({ code: 0 });
        checkLines(third.stdout);
      });
    }, 60_000);

    it('--leave-running: the application goes on, and the image restores from that instant', async () => {
      await withBed(identity, async (bed) => {
        const command = [PYTHON, fixture('clocks.py'), bed.path('stop'), '30'];
        const first = bed.run(await bed.place(), url(bed), command);
        await first.progresses(3);
        for (let i = 1; i <= 3; i += 1) {
          await first.commits(['--leave-running']);
          expect(generations(bed.path('image')).at(-1)).toBe(i);
          await first.progresses(5);
        }
        expect(first.running).toBe(true);
        // Its twin from a copy of the last image continues at a line that this one has already passed.
        const elsewhere = await bed.place({ clockOffsetS: 9000 });
        const copied = await elsewhere.fastfreeze(['cp', `file:${bed.path('image')}`, `file:${bed.path('copy')}`]);
        expect(copied.code).toBe(0);
        const twin = bed.run(elsewhere, url(bed, 'copy'), command);
        await twin.ready('restored');
        await twin.progresses(3);
        const start = Number(/^\d+/.exec(twin.stdout)?.[0]);
        expect(first.stdout.split('\n').length).toBeGreaterThan(start);
        writeFileSync(bed.path('stop'), '');
        expect(await first.ends()).toMatchObject({ code: 0 });
        expect(await twin.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout);
        const upTo = first.stdout.split('\n').slice(0, start).join('\n');
        checkLines(`${upTo}\n${twin.stdout}`);
      });
    }, 120_000);

    it('--leave-stopped: restored but stopped, until SIGCONT', async () => {
      await withBed(identity, async (bed) => {
        const first = bed.run(await bed.place(), url(bed), [PYTHON, fixture('memory.py'), bed.path('stop'), '2']);
        await first.progresses(2);
        await first.freeze();
        const second = bed.run(await bed.place(), [...url(bed), '--leave-stopped'], []);
        await second.ready('restored');
        const stopped = await until('a stopped application', () =>
          descendantsOf(second.pid)
            .map(inspect)
            .find((info) => info?.state === 'T' && info.command.includes('memory.py')),
        );
        const before = second.stdout;
        await sleep(300);
        expect(second.stdout).toBe(before);
        process.kill(stopped.pid, 'SIGCONT');
        await second.progresses(2);
        writeFileSync(bed.path('stop'), '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout);
      });
    }, 60_000);

    it('--checkpoint-every commits on its own, --keep deletes what is old', async () => {
      await withBed(identity, async (bed) => {
        const options = [...url(bed), '--checkpoint-every', '1s', '--keep', '2', '--output', bed.path('work', 'log')];
        const first = bed.run(await bed.place(), options, loop(bed));
        await first.ready();
        const image = bed.path('image');
        await until('four generations', () => existsSync(image) && (generations(image).at(-1) ?? 0) >= 4, 60_000);
        await until('old ones to go', () => generations(image).length <= 3);
        await first.commits();
        expect(await first.ends()).toMatchObject({ code: 137 });
        expect(generations(image)).toHaveLength(2);
        checkNames(image);
        const second = bed.run(await bed.place(), [...url(bed), '--output', bed.path('work', 'log')], loop(bed));
        await second.ready('restored');
        writeFileSync(bed.path('stop'), '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        checkLines(readFileSync(bed.path('work', 'log'), 'utf8'));
      });
    }, 120_000);

    it('--checkpoint-on: the signal freezes and ends instead of going to the application', async () => {
      await withBed(identity, async (bed) => {
        const options = [...url(bed), '--checkpoint-on', 'SIGINT,SIGTERM'];
        const command = [PYTHON, fixture('signals.py'), bed.path('stop')];
        const first = bed.run(await bed.place(), options, command);
        await first.ready();
        await first.prints(/ready/);
        first.signal('SIGUSR1');
        await first.prints(/got USR1/);
        first.signal('SIGTERM');
        // A second one, while the checkpoint is under way, must not hurt it.
        await sleep(50);
        first.signal('SIGINT');
        first.signal('SIGTERM');
        expect(await first.ends()).toMatchObject({ code: 137 });
        const second = bed.run(await bed.place(), options, command);
        await second.ready('restored');
        writeFileSync(bed.path('stop'), '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        expect(first.stdout + second.stdout).toMatch(/^ready \d+\ngot USR1\n$/);
      });
    }, 60_000);

    it('--on-app-ready runs once the application runs, from scratch and restored; its failure is a warning', async () => {
      await withBed(identity, async (bed) => {
        const mark = bed.path('work', 'hook');
        const options = [...url(bed), '--on-app-ready', `echo ready >>${mark}; echo from-hook`];
        const first = bed.run(await bed.place(), options, loop(bed));
        await until('the hook', () => existsSync(mark) && readFileSync(mark, 'utf8') === 'ready\n');
        await first.progresses(2);
        await first.freeze();
        const failing = [...url(bed), '--on-app-ready', `echo ready >>${mark}; exit 3`];
        const second = bed.run(await bed.place(), failing, loop(bed));
        await until('the hook again', () => readFileSync(mark, 'utf8') === 'ready\nready\n');
        await second.says(/Warning: --on-app-ready ended with exit code 3/);
        writeFileSync(bed.path('stop'), '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        // stdout is the application's only.
        checkLines(first.stdout + second.stdout);
      });
    }, 60_000);

    test('PIDs of ours do not get in the way: a hook with 50 processes at every start', async () => {
      await withBed(identity, async (bed) => {
        const options = [...url(bed), '--on-app-ready', 'for i in $(seq 50); do sleep 2 & done; wait'];
        const command = [PYTHON, fixture('children.py'), bed.path('stop'), '30'];
        let output = '';
        for (let generation = 0; generation < 4; generation += 1) {
          const job = bed.run(await bed.place(), options, command);
          await job.ready(generation === 0 ? 'scratch' : 'restored');
          await job.progresses(30);
          if (generation < 3) await job.freeze();
          else {
            writeFileSync(bed.path('stop'), '');
            expect(await job.ends()).toMatchObject({ code: 0 });
          }
          expect(job.stderr).not.toMatch(/VIOLATION/);
          output += job.stdout;
        }
        checkLines(output);
      });
    }, 120_000);

    it('every --cpu-budget and number of shards restores what it froze', async () => {
      await withBed(identity, async (bed) => {
        let output = '';
        const settings = [
          ['--cpu-budget', 'low', '--num-shards', '1'],
          ['--cpu-budget', 'medium', '--num-shards', '4'],
          ['--cpu-budget', 'high', '--num-shards', '7'],
        ];
        const command = [PYTHON, fixture('memory.py'), bed.path('stop'), '20'];
        for (const setting of settings) {
          const job = bed.run(await bed.place(), url(bed), command);
          await job.ready();
          await job.progresses(3);
          await job.freeze(setting);
          expect(job.stderr).not.toMatch(/VIOLATION/);
          output += job.stdout;
        }
        const last = bed.run(await bed.place(), [...url(bed), '--cpu-budget', 'high'], command);
        await last.ready('restored');
        await last.progresses(3);
        writeFileSync(bed.path('stop'), '');
        expect(await last.ends()).toMatchObject({ code: 0 });
        checkLines(output + last.stdout);
      });
    }, 120_000);

    it('--spool: the image is durable there first and arrives in the store', async () => {
      await withBed(identity, async (bed) => {
        const spool = bed.directory('spool');
        const options = [...url(bed), '--spool', spool];
        const first = bed.run(await bed.place(), options, loop(bed));
        await first.progresses(2);
        await first.freeze();
        await until(
          'the image to arrive',
          () => existsSync(bed.path('image')) && generations(bed.path('image')).includes(1),
        );
        const second = bed.run(await bed.place(), url(bed), loop(bed));
        await second.ready('restored');
        writeFileSync(bed.path('stop'), '');
        expect(await second.ends()).toMatchObject({ code: 0 });
        checkLines(first.stdout + second.stdout);
      });
    }, 60_000);

    it('--spool: a job that ends while images of it wait there has finished, and they do not bring it back', async () => {
      await withBed(identity, async (bed) => {
        const [spool, place] = [bed.directory('spool'), await bed.place()];
        const store = openStore(spoolUrl(spool, `file:${bed.path('image')}`));
        const waiting = async (): Promise<number> => (await listGenerations(store)).length;
        // Whoever has the lock is copying, and others wait.
        const lock = `${store.url.slice('file:'.length)}.lock`;
        writeFileSync(lock, '');
        bed.give(lock);
        const fd = tryLock(lock);
        if (fd === undefined) throw new Error('somebody has the lock of a new spool');
        try {
          const job = bed.run(place, [...url(bed), '--spool', spool], loop(bed));
          await job.progresses(2);
          await job.commits(['--leave-running']);
          await job.commits(['--leave-running']);
          expect(await waiting()).toBe(2);
          writeFileSync(bed.path('stop'), '');
          expect(await job.ends()).toMatchObject({ code: 0 });
        } finally {
          closeSync(fd);
        }
        await until('the spool to be empty', async () => (await waiting()) === 0);
        const { code, stdout } = await place.fastfreeze(['list', '--json', `file:${bed.path('image')}`]);
        expect(code).toBe(0);
        expect(JSON.parse(stdout)).toMatchObject({ jobs: [{ state: 'finished', generations: [{ generation: 3 }] }] });
        const retry = bed.run(place, [...url(bed), '--spool', spool], loop(bed));
        await retry.ready('scratch');
        expect(retry.stderr).toMatch(/finished/i);
        expect(await retry.ends()).toMatchObject({ code: 0 });
      });
    }, 60_000);

    it('wait returns when the application is ready, waits for a checkpoint or a restore under way, and ends with 170 when that takes too long', async () => {
      await withBed(identity, async (bed) => {
        const fake = await GcsFake.start();
        try {
          fake.makeBucket('jobs');
          const place = await bed.place();
          // Some seconds of checkpoint.
          const env = { ...fake.env, FF_STORE_RATE_LIMIT: '1M' };
          // An interval that Node.js alone would take for a millisecond.
          const options = ['--image-url', 'gs://jobs/slow', '--container', 'one', '--checkpoint-every', '30d'];
          const job = bed.run(place, options, [PYTHON, fixture('memory.py'), bed.path('stop'), '2'], { env });
          await job.ready();
          expect(await place.fastfreeze(['wait', '-t', '20', '-n', 'one'])).toMatchObject({ code: 0 });
          const status = await place.fastfreeze(['status', '-n', 'one']);
          expect(status.stdout).toMatch(/^one: running[^]*memory\.py/);
          await job.progresses(1);

          let isDone = false;
          const checkpoint = job.commits(['--leave-running']).then(() => (isDone = true));
          await job.says(/Checkpointing application/);
          const late = await place.fastfreeze(['wait', '-t', '0.25', 'one']);
          expect([late.code, isDone, late.stderr]).toEqual([
            170,
            false,
            expect.stringMatching(/^Error: .+\nTry: .+\n$/),
          ]);
          const waited = await place.fastfreeze(['wait', 'one']);
          expect(waited).toMatchObject({ code: 0, stderr: '' });
          expect(JSON.parse((await place.fastfreeze(['status', '--json', 'one'])).stdout)).toMatchObject({
            jobs: [{ state: 'running', lastCheckpoint: { generation: 1 } }],
          });
          await checkpoint;
          await job.commits();
          expect(await job.ends()).toMatchObject({ code: 137 });

          // Some seconds of restore; who waits for its end must not be in its way.
          const elsewhere = await bed.place();
          const second = bed.run(elsewhere, options, [], { env });
          const state = async (): Promise<string | undefined> => {
            const { stdout } = await elsewhere.fastfreeze(['status', '--json']);
            return (JSON.parse(stdout) as { jobs: { state: string }[] }).jobs[0]?.state;
          };
          await until(
            'the restore',
            async () => (await state()) === 'restoring',
            20_000,
            () => second.stderr,
          );
          const early = await elsewhere.fastfreeze(['wait', '-t', '0.25', 'one']);
          expect([early.code, await state()]).toEqual([170, 'restoring']);
          expect(await elsewhere.fastfreeze(['wait', '-t', '30d', 'one'])).toMatchObject({ code: 0, stderr: '' });
          expect(await state()).toBe('running');
          writeFileSync(bed.path('stop'), '');
          expect(await second.ends()).toMatchObject({ code: 0 });
        } finally {
          await fake.stop();
        }
      });
    }, 60_000);

    it('two checkpoints at once: both are answered, nothing is torn', async () => {
      await withBed(identity, async (bed) => {
        const place = await bed.place();
        const job = bed.run(place, url(bed), [PYTHON, fixture('memory.py'), bed.path('stop'), '40']);
        await job.ready();
        await job.progresses(2);
        const answers = await Promise.all([0, 1, 2].map(async () => await job.checkpoint(['--leave-running'])));
        expect(answers.some((answer) => answer.code === 0)).toBe(true);
        for (const answer of answers)
          if (answer.code !== 0)
            expect(answer).toMatchObject({ code: 170, stderr: expect.stringMatching(/^Error: /m) });
        await job.progresses(3);
        checkNames(bed.path('image'));
        await job.freeze();
        const next = bed.run(await bed.place(), url(bed), []);
        await next.ready('restored');
        writeFileSync(bed.path('stop'), '');
        expect(await next.ends()).toMatchObject({ code: 0 });
        checkLines(job.stdout + next.stdout);
      });
    }, 120_000);

    test('no descriptor, variable or directory of ours leaks into the application', async () => {
      await withBed(identity, async (bed) => {
        const job = bed.run(await bed.place(), url(bed), ['sh', '-c', 'ls /proc/self/fd; pwd; umask; env | sort']);
        expect(await job.ends()).toMatchObject({ code: 0 });
        const [fds, rest] = [job.stdout.split('\n').slice(0, 4), job.stdout.split('\n').slice(4)];
        // The fourth is the directory that ls reads.
        expect(fds).toEqual(['0', '1', '2', '3']);
        expect(rest[0]).toBe(bed.path('work'));
        expect(rest).toContain(`FF_TEST_ID=${bed.id}`);
        expect(rest).toContain(`HOME=${homeOf(identity)}`);
        expect(job.stdout).not.toMatch(/^(NODE_|FF_INTERNAL|NODE_OPTIONS)/m);
      });
    }, 60_000);
  });
}

test("root may checkpoint a normal user's job; another user may not", async () => {
  await withBed('user', async (bed) => {
    const place = await bed.place();
    const job = bed.run(place, url(bed), loop(bed));
    await job.ready();
    await job.progresses(2);
    const stranger = await place.exec(
      ['setpriv', '--reuid=64002', '--regid=64002', '--clear-groups', ...fastfreeze(), 'checkpoint'],
      { as: 'root' },
    );
    expect(stranger.code).not.toBe(0);
    await job.progresses(2);
    await job.commits([], { as: 'root' });
    expect(await job.ends()).toMatchObject({ code: 137 });
    const next = bed.run(await bed.place(), url(bed), loop(bed));
    await next.ready('restored');
    writeFileSync(bed.path('stop'), '');
    expect(await next.ends()).toMatchObject({ code: 0 });
    checkLines(job.stdout + next.stdout);
  });
}, 120_000);

test('--no-container inside a container that is already private', async () => {
  await withBed('root', async (bed) => {
    const within = ['unshare', '--pid', '--fork', '--mount', '--mount-proc', '--kill-child'];
    const place = await bed.place();
    const first = bed.run(place, [...url(bed), '--no-container'], loop(bed), { within });
    await first.ready('scratch');
    await first.progresses(2);
    const carried = await first.checkpoint(['--carry-mapped']);
    expect(carried).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^Error: cannot use --carry-mapped: only in a/m),
    });
    await first.commits();
    expect(await first.ends()).toMatchObject({ code: 137 });
    const second = bed.run(await bed.place(), [...url(bed), '--no-container'], loop(bed), { within });
    await second.ready('restored');
    writeFileSync(bed.path('stop'), '');
    expect(await second.ends()).toMatchObject({ code: 0 });
    checkLines(first.stdout + second.stdout);
  });
}, 60_000);

test('usage errors end with 2 and say what is wrong', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    for (const args of [
      ['run', '--no-such-flag'],
      ['run', '--num-shards', 'many', '--', 'true'],
      ['run', '--no-container', '--carry-mapped', '--', 'true'],
      ['run', '--spool', '', '--', 'true'],
      ['run', '--generation', '0', '--', 'true'],
      ['checkpoint', '--cpu-budget', 'huge'],
      ['extract', '--output-dir', '', '--image-url', 'file:/nowhere'],
      ['bogus'],
      ['constructor'],
    ]) {
      const answer = await place.fastfreeze(args);
      expect([args.join(' '), answer.code]).toEqual([args.join(' '), 2]);
      expect(answer.stderr).toMatch(/^Error: .+/m);
    }
    // Also where nothing is read at the start.
    const env = { FF_GS_STORAGE_CLASS: 'nearline' };
    const wrong = await place.fastfreeze(['run', '-i', 'gs://bucket/job', '--no-restore', '--', 'echo', 'ran'], {
      env,
    });
    expect(wrong).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('FF_GS_STORAGE_CLASS') });
    // A store that we do not have may count as a wrong command line or as an image that cannot be had; nothing runs in either case.
    const answer = await place.fastfreeze(['run', '--image-url', 'http://x/y', '--', 'echo', 'ran']);
    expect([2, 170, 171]).toContain(answer.code);
    expect(answer).toMatchObject({ stdout: '', stderr: expect.stringMatching(/^Error: .*http/m) });
  });
}, 60_000);

test('of the words of an application none is ours, and generations may have any number', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    for (const words of [['run'], ['batch', 'run', '--adapter', 'none']]) {
      const here = url(bed, words.join('-'));
      const answer = await place.fastfreeze([...words, ...here, 'sh', '-c', 'echo "$1"', 'x', '--help']);
      expect(answer).toMatchObject({ code: 0, stdout: '--help\n' });
      const help = await place.fastfreeze([...words, ...here, '--help']);
      expect(help).toMatchObject({ code: 0, stdout: expect.stringMatching(/^Usage: fastfreeze/) });
    }
    const missing = await place.fastfreeze(['run', ...url(bed, 'none'), '--generation', '70000', '--', 'echo', 'ran']);
    expect(missing).toMatchObject({ code: 171, stdout: '', stderr: expect.stringContaining('70000') });
  });
}, 60_000);

test('a long state directory is no obstacle: a socket path of over 107 bytes', async () => {
  await withBed('root', async (bed) => {
    const state = bed.directory(
      'a-directory-name-that-is-as-long-as-some-batch-systems-make-them',
      'and-one-more-of-the-same-kind-below-it',
    );
    spawnSync('chmod', ['700', state]);
    const env = { FF_STATE_DIR: state };
    const place = await bed.place();
    const job = bed.run(place, url(bed), loop(bed), { env });
    await job.ready();
    await job.progresses(2);
    expect(await place.fastfreeze(['checkpoint'], { env })).toMatchObject({ code: 0 });
    expect(await job.ends()).toMatchObject({ code: 137 });
    const next = bed.run(await bed.place(), url(bed), loop(bed), { env });
    await next.ready('restored');
    writeFileSync(bed.path('stop'), '');
    expect(await next.ends()).toMatchObject({ code: 0 });
    checkLines(job.stdout + next.stdout);
  });
}, 60_000);
