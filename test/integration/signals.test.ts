// SPDX-License-Identifier: Apache-2.0
// The PID that the caller started stands for the application: signals go through it, and its exit status is the application's.
import { writeFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { listGenerations } from '../../src/image/generations.js';
import { openStore } from '../../src/store/store.js';
import { withBed, type Identity } from '../support/bed.js';
import { GcsFake, type SeenRequest } from '../support/gcs-fake.js';
import { inTurn } from '../support/in-turn.js';
import { ended } from '../support/place.js';
import { signalPid } from '../support/processes.js';
import { fastfreeze, fixture, PYTHON } from '../support/stage.js';
import { sleep, until } from '../support/until.js';
import type { Job } from '../support/job.js';

const SIGNALS = ['USR1', 'HUP', 'TERM', 'INT', 'WINCH', 'QUIT', 'USR2', 'ALRM'] as const;

async function expectAllSignals(job: Job): Promise<void> {
  for (const name of SIGNALS) {
    job.signal(`SIG${name}`);
    await job.prints(new RegExp(`^got ${name}$`, 'm'), 10_000);
  }
  // Each came once, in this order.
  expect(job.stdout.match(/^got \w+$/gm)).toEqual(SIGNALS.map((name) => `got ${name}`));
  expect(job.running).toBe(true);
}

for (const identity of ['root', 'user'] as const) {
  describe(`as ${identity}`, () => {
    const it = inTurn(identity);
    test('each signal to the outermost PID reaches the application, also after a restore', async () => {
      await withBed(identity, async (bed) => {
        const stopFile = bed.path('stop');
        const command = [PYTHON, fixture('signals.py'), stopFile, 'none'];
        const options = ['--image-url', `file:${bed.path('image')}`];
        const first = bed.run(await bed.place(), options, command);
        await first.ready('scratch');
        await first.prints(/^ready/m);
        await expectAllSignals(first);
        await first.freeze();
        const second = bed.run(await bed.place({ clockOffsetS: 50 }), options, command);
        await second.ready('restored');
        await expectAllSignals(second);
        writeFileSync(stopFile, '');
        expect(await second.ends()).toMatchObject({ code: 0 });
      });
    }, 120_000);

    it('a signal that comes right after the start is not lost: it ends the run or reaches the application', async () => {
      await withBed(identity, async (bed) => {
        const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], ['sleep', '1000']);
        await sleep(150);
        job.signal('SIGTERM');
        const { code } = await job.ends();
        // Before the application is ready the run ends and says so; after that the signal is the application's.
        // A loaded machine may not even have started Node.js: then it dies of the signal like any program, and nothing was begun.
        if (job.stderr === '' || job.stderr.includes('Application is ready')) expect(code).toBe(143);
        else {
          expect(code).toBe(170);
          expect(job.stderr).toMatch(/SIGTERM came first/);
        }
      });
    }, 60_000);

    it('an application that exits on a signal gives its own code', async () => {
      await withBed(identity, async (bed) => {
        const command = [PYTHON, fixture('signals.py'), bed.path('stop'), 'TERM'];
        const job = bed.run(await bed.place(), ['--image-url', `file:${bed.path('image')}`], command);
        await job.ready();
        await job.prints(/^ready/m);
        job.signal('SIGTERM');
        expect(await job.ends()).toMatchObject({ code: 55 });
      });
    }, 60_000);

    it('exit codes and deaths by signal are mirrored', async () => {
      await withBed(identity, async (bed) => {
        const place = await bed.place();
        const cases: readonly [string, number][] = [
          ['exit 0', 0],
          ['exit 1', 1],
          ['exit 85', 85],
          ['exit 255', 255],
          ['kill -TERM $$', 143],
          ['kill -KILL $$', 137],
          ['kill -SEGV $$', 139],
          ['kill -HUP $$', 129],
        ];
        for (const [index, [script, code]] of cases.entries()) {
          const job = bed.run(place, ['--image-url', `file:${bed.path(`image-${index}`)}`], ['sh', '-c', script]);
          expect([script, (await job.ends()).code]).toEqual([script, code]);
        }
      });
    }, 120_000);

    test('exit codes and deaths by signal are mirrored after a restore', async () => {
      await withBed(identity, async (bed) => {
        for (const [index, [ending, code]] of (
          [
            ['exit 23', 23],
            ['kill -TERM $$', 143],
          ] as const
        ).entries()) {
          const go = bed.path(`go-${index}`);
          const options = ['--image-url', `file:${bed.path(`image-${index}`)}`];
          const command = ['sh', '-c', `echo up; while [ ! -e ${go} ]; do sleep 0.05; done; ${ending}`];
          const first = bed.run(await bed.place(), options, command);
          await first.ready();
          await first.prints(/up/);
          await first.freeze();
          const second = bed.run(await bed.place(), options, command);
          await second.ready('restored');
          writeFileSync(go, '');
          expect([ending, (await second.ends()).code]).toEqual([ending, code]);
        }
      });
    }, 120_000);

    it('signal dispositions are clean: yes | head -1 ends', async () => {
      await withBed(identity, async (bed) => {
        const job = bed.run(
          await bed.place(),
          ['--image-url', `file:${bed.path('image')}`],
          ['bash', '-c', 'yes | head -1; echo ${PIPESTATUS[0]}'],
        );
        expect(await job.ends()).toMatchObject({ code: 0 });
        expect(job.stdout).toBe('y\n141\n');
      });
    }, 60_000);

    it('a command that does not exist or cannot run fails before it is ready', async () => {
      await withBed(identity, async (bed) => {
        const place = await bed.place();
        for (const word of ['/nonexistent/program', bed.write('not-executable', 'x')]) {
          const job = bed.run(place, ['--image-url', `file:${bed.path('image')}`], [word]);
          expect(await job.ends()).toMatchObject({ code: 170 });
          expect(job.stderr).toMatch(/^Error: .*(nonexistent|not-executable)/m);
        }
      });
    }, 60_000);

    it('a signal that asks for a checkpoint while another is under way is not forgotten', async () => {
      await withSlowStore(identity, async ({ job, underWay, goOn, committed }) => {
        const client = job.checkpoint(['--leave-running']);
        await underWay();
        // Impatience asks for no more than one.
        job.signal('SIGTERM');
        job.signal('SIGTERM');
        await job.says(/A checkpoint is under way; please wait/);
        goOn();
        expect(await client).toMatchObject({ code: 0 });
        expect(await job.ends()).toMatchObject({ code: 137 });
        expect(await committed()).toEqual([1, 2]);
      });
    }, 120_000);

    it('it is enough that the checkpoint under way stops the application; when that fails, the signal still counts', async () => {
      await withSlowStore(identity, async ({ job, underWay, goOn, committed }) => {
        const client = job.place.start([...fastfreeze(), 'checkpoint']);
        const end = ended(client, 'the client', () => '');
        await underWay();
        job.signal('SIGTERM');
        await job.says(/A checkpoint is under way; please wait/);
        signalPid(client.pid ?? -1, 'SIGKILL');
        await end;
        goOn();
        expect(await job.ends()).toMatchObject({ code: 137 });
        expect(job.stderr).toMatch(/SIGTERM: freezing the application/);
        expect(await committed()).toEqual([1]);
      });
      await withSlowStore(identity, async ({ job, underWay, goOn, committed }) => {
        const client = job.checkpoint();
        await underWay();
        job.signal('SIGTERM');
        await job.says(/A checkpoint is under way; please wait/);
        goOn();
        expect(await client).toMatchObject({ code: 0 });
        expect(await job.ends()).toMatchObject({ code: 137 });
        expect(job.stderr).not.toMatch(/SIGTERM: freezing the application/);
        expect(await committed()).toEqual([1]);
      });
    }, 180_000);
  });
}

interface SlowStore {
  readonly job: Job;
  /** Waits until an image is on its way, which does not arrive. */
  readonly underWay: () => Promise<void>;
  readonly goOn: () => void;
  readonly committed: () => Promise<number[]>;
}

/** A job with --checkpoint-on SIGTERM whose images arrive only when the test says so. */
async function withSlowStore(identity: Identity, body: (slow: SlowStore) => Promise<void>): Promise<void> {
  const fake = await GcsFake.start();
  const saved = { ...process.env };
  try {
    fake.makeBucket('jobs');
    Object.assign(process.env, fake.env);
    await withBed(identity, async (bed) => {
      const url = 'gs://jobs/slow';
      const isOfImage = ({ query }: { readonly query: SeenRequest['query'] }): boolean =>
        query['name']?.endsWith('.ffs') === true;
      fake.fault = (request) => (isOfImage(request) ? { kind: 'answer', status: 503 } : undefined);
      const options = ['--image-url', url, '--checkpoint-on', 'SIGTERM'];
      const command = ['sh', fixture('shell-loop.sh'), bed.path('stop')];
      const job = bed.run(await bed.place(), options, command, { env: fake.env });
      await job.ready('scratch');
      await body({
        job,
        underWay: async () => {
          await until('an image to be on its way', () => fake.requests.some(isOfImage));
        },
        goOn: () => (fake.fault = () => undefined),
        committed: async () => await listGenerations(openStore(url)),
      });
    });
  } finally {
    process.env = saved;
    await fake.stop();
  }
}
