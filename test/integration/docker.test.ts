// SPDX-License-Identifier: Apache-2.0
// docker/: the image is built by Podman, and each set of options in the table of docker/README.md does what the table says.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import type { Running } from '../support/container.js';
import { blocksIn, typed } from '../support/document.js';
import { checkLines } from '../support/lines.js';
import { hasMoto, startMoto } from '../support/moto.js';
import { MAKE_PACKAGE_MS, makePackage } from '../support/package.js';
import { Podman } from '../support/podman.js';
import { FULL } from '../support/random.js';
import { until } from '../support/until.js';

jest.setTimeout(180_000);

const ALONE = ['--network', 'none'];
const PATIENCE_MS = 60_000;

/** One line of the table in docker/README.md. */
interface Row {
  readonly options: string;
  /** Where it fails: `start`, `freeze` or `continue`. */
  readonly fails?: string;
  readonly error?: string;
}

const rows: Row[] = [
  ...readFileSync('docker/README.md', 'utf8').matchAll(/^\| `(--[^`]*)` \| (?:works|(\w+): `` (.*?) ``).*\|$/gm),
].map(([, options = '', fails, error]) => ({
  options,
  ...(fails === undefined ? {} : { fails }),
  ...(error === undefined ? {} : { error }),
}));

const [PRIVILEGED, ...others] = rows.filter(({ fails }) => fails === undefined).map(({ options }) => options);
/** Without a container of its own, and as a normal user in one. */
const SMALLEST = others.filter((options) => FULL || options.includes('--cap-drop ALL'));
/** What the README names first, tried with S3. */
const USUAL = others.find((options) => options.startsWith('--cap-add CHECKPOINT_RESTORE'));

const started = await Podman.start();
if (typeof started === 'string') process.stderr.write(`test: the image for Docker is not tested: ${started}\n`);

if (typeof started === 'string') test.skip('the image for Docker', () => undefined);
else withPodman(started);

function withPodman(podman: Podman): void {
  let built = '';
  beforeAll(async () => {
    built = await podman.build(makePackage());
  }, MAKE_PACKAGE_MS);
  afterAll(async () => {
    expect(await podman.stop()).toBe('');
  });

  let jobs = 0;
  /** One job over several containers, its volume and its stop file. */
  class Job {
    readonly folder = `/tmp/job-${++jobs}`;
    readonly name = `job-${jobs}`;
    readonly #runs: Running[] = [];

    constructor(
      readonly options: readonly string[],
      readonly network = 'none',
    ) {}

    /** What `run` is told to start or continue it. */
    async arguments(): Promise<[options: string[], words: string[]]> {
      await podman.succeeds(['mkdir', '-p', '-m', '777', `${this.folder}/dump`, `${this.folder}/job`]);
      const volumes = ['--volume', `${this.folder}/dump:/dump`, '--volume', `${this.folder}/job:/job`];
      const options = ['--name', this.name, '--network', this.network, ...volumes, ...this.options];
      return [options, ['start', 'sh', '/fixtures/shell-loop.sh', '/job/stop']];
    }

    /** A container that starts or continues it. */
    async start(): Promise<Running> {
      const run = podman.run(...(await this.arguments()));
      this.#runs.push(run);
      return run;
    }

    /** Until it has worked in its last container; or until that has ended. */
    async works(run: Running): Promise<boolean> {
      let ended = false;
      void run.code.then(() => (ended = true));
      await until('the job to work', () => ended || run.stdout().split('\n').length > 3, PATIENCE_MS, run.stderr);
      return run.stdout() !== '';
    }

    async freeze(how: readonly string[]): Promise<{ code: number; stderr: string }> {
      const line = how.map((word) => word.replaceAll('NAME', this.name));
      return await (line[0] === 'sh' ? podman.exec(line) : podman.command(...line));
    }

    /** Freezes it so, and starts the next container, in which it works on. */
    async moves(run: Running, how: readonly string[]): Promise<Running> {
      expect(await this.works(run)).toBe(true);
      const { code, stderr } = await this.freeze(how);
      expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
      expect([await run.code, run.stderr()]).toEqual([137, expect.stringContaining('complete: ')]);
      const next = await this.start();
      expect([await this.works(next), next.stderr()]).toEqual([
        true,
        expect.stringContaining('Restoring application from generation'),
      ]);
      return next;
    }

    /** Lets it end, and looks at all that it has printed. */
    async ends(run: Running): Promise<void> {
      await podman.succeeds(['touch', `${this.folder}/job/stop`]);
      expect(await run.code).toBe(0);
      checkLines(this.#runs.map((one) => one.stdout()).join(''));
    }
  }

  test('is built, and says how it is used', async () => {
    expect(built).toMatch(/COPY fastfreeze \/opt\/fastfreeze/);
    const help = podman.run(ALONE, []);
    expect([await help.code, help.stdout()]).toEqual([0, expect.stringContaining('Usage: freezer start [OPTIONS]')]);
    const wrong = podman.run(ALONE, ['sample']);
    expect([await wrong.code, wrong.stderr()]).toEqual([
      2,
      expect.stringMatching(/^Error: .*\nTry: freezer start sample\n/),
    ]);
    const bucket = podman.run([...ALONE, '--env', 'S3=bucket'], ['start', 'sample']);
    expect([await bucket.code, bucket.stderr()]).toEqual([2, expect.stringContaining('expected s3://BUCKET')]);
  });

  test('the README’s commands as they are typed: the sample is frozen by Ctrl-C, then from outside', async () => {
    // Docker makes it by itself.
    await podman.succeeds(['mkdir', '/tmp/dump']);
    const counted = (text: string): number[] => [...text.matchAll(/ \d{4}\s+(\d+)\r?$/gm)].map(([, n]) => Number(n));
    const first = await podman.typeOnTerminal(typed('docker/README.md', 'docker run --rm -it'));
    await until('two lines', () => counted(first.stdout()).length > 1, PATIENCE_MS, first.stdout);
    await first.type('\x03');
    expect([await first.code, first.stdout()]).toEqual([137, expect.stringContaining('SIGINT: freezing')]);

    // The other word for `start`.
    const line = typed('README.md', 'docker run').replace('freezer start', 'freezer run');
    const second = podman.start(line);
    await until('a line', () => counted(second.stdout()).length > 0, PATIENCE_MS, second.stderr);
    const name = (await podman.type('docker ps --quiet')).trim();
    expect(await podman.type(`docker exec ${name} freezer status`)).toMatch(/^freezer: running[^]*sample/m);
    expect(await podman.type(`docker exec ${name} freezer doctor`)).toMatch(/canary/);
    await podman.type(typed('docker/README.md', 'docker exec').replace('CONTAINER', name));
    expect([await second.code, second.stderr()]).toEqual([137, expect.stringContaining('Checkpoint 2 complete')]);
    const numbers = [...counted(first.stdout()), ...counted(second.stdout())];
    expect(numbers).toEqual(numbers.map((_, index) => index));
  });

  test('an image on top of it, as the README has one; and the one for AWS Batch', async () => {
    const solve = '#!/bin/sh\necho "solved $*"\n';
    const [dockerfile = ''] = blocksIn('docker/README.md', 'dockerfile');
    podman.folder('own', undefined, { Dockerfile: dockerfile, solve });
    await podman.type('docker build -t own own');
    expect(await podman.type('docker run --rm --privileged own')).toMatch(/^solved --all$/m);

    const folder = podman.folder('aws', makePackage(), {
      Dockerfile: readFileSync('batch-adapters/aws-batch/Dockerfile', 'utf8'),
      solve,
    });
    const build = typed('batch-adapters/aws-batch/README.md', 'docker build');
    await podman.type(`cd ${folder}\n${build}`, `--from ${Podman.BASE}`);
    const image = build.split(' ')[3] ?? '';
    const env = '-e FASTFREEZE_IMAGE_BASE=file:/tmp -e FASTFREEZE_JOB_ID=job';
    expect(await podman.type(`docker run --rm --privileged ${env} ${image}`)).toMatch(/^solved in.dat$/m);
  });

  test('a job is frozen by stop, Ctrl-C and `freezer freeze`, and continues from the volume', async () => {
    const job = new Job(words(PRIVILEGED));
    let run = await job.start();
    run = await job.moves(run, ['stop', '--time', '60', 'NAME']);
    run = await job.moves(run, ['kill', '--signal', 'INT', 'NAME']);
    // As Kubernetes does it: the hook, then SIGTERM. Where the hook has frozen it there is nobody left to get it.
    run = await job.moves(run, [
      'sh',
      '-c',
      'docker exec NAME freezer freeze && { docker stop --time 60 NAME || true; }',
    ]);
    run = await job.moves(run, [
      'sh',
      '-c',
      '! docker exec NAME freezer freeze -i file:/proc/1 && docker stop -t 60 NAME',
    ]);
    await job.ends(run);
  });

  test('on a terminal Ctrl-C freezes it', async () => {
    const job = new Job(words(PRIVILEGED));
    const shown: string[] = [];
    for (const stop of [false, true]) {
      const run = await podman.runOnTerminal(...(await job.arguments()));
      await until('the job to work', () => run.stdout().split(' shell').length > 3, PATIENCE_MS, run.stdout);
      if (stop) await podman.succeeds(['touch', `${job.folder}/job/stop`]);
      else await run.type('\x03');
      expect([await run.code, run.stdout()]).toEqual([
        stop ? 0 : 137,
        expect.stringContaining(stop ? 'Restoring application from generation 1' : 'SIGINT: freezing'),
      ]);
      shown.push(...run.stdout().replaceAll('\r', '').split('\n'));
    }
    // Our own lines are on the same screen.
    const lines = shown.map((line) => line.replace('^C', '')).filter((line) => /^\d+ /.test(line));
    checkLines(`${lines.join('\n')}\n`);
  });

  test.each(SMALLEST)('%s suffices', async (options) => {
    const job = new Job(words(options));
    await job.ends(await job.moves(await job.start(), ['exec', 'NAME', 'freezer', 'freeze']));
  });

  if (hasMoto) {
    test('with S3 it needs no volume', async () => {
      const server = await startMoto();
      try {
        await server.makeBucket('ours');
        const env = Object.entries({ ...server.env, S3: 's3://ours/' }).flatMap(([name, value]) => [
          '--env',
          `${name}=${value}`,
        ]);
        const job = new Job([...words(USUAL), ...env], 'host');
        await job.ends(await job.moves(await job.start(), ['stop', '--time', '60', 'NAME']));
        expect(await podman.succeeds(['ls', `${job.folder}/dump`])).toBe('');
      } finally {
        await server.stop();
      }
    });
  } else test.skip('the image for Docker with S3, against moto', () => undefined);

  test('the table has the sets that suffice, and what is missing in smaller ones', () => {
    expect(rows.filter(({ fails }) => fails === undefined).length).toBeGreaterThan(3);
    expect(new Set(rows.map(({ fails }) => fails))).toEqual(new Set([undefined, 'start', 'freeze', 'continue']));
  });

  // Some ten containers; what suffices is the promise, and is tried above.
  const smaller = rows.filter(({ fails }) => fails !== undefined && (FULL || fails === 'freeze'));
  test.each(smaller.slice(0, FULL ? undefined : 1))('$options does not suffice', async ({ options, fails, error }) => {
    const job = new Job(words(options));
    const first = await job.start();
    const works = await job.works(first);
    expect(works).toBe(fails !== 'start');
    const frozen = works ? await job.freeze(['exec', 'NAME', 'freezer', 'freeze']) : undefined;
    if (fails === 'start') {
      expect([await first.code, errorOf(first.stderr())]).toEqual([170, error]);
    } else if (fails === 'freeze') {
      expect([frozen?.code, errorOf(frozen?.stderr ?? '')]).toEqual([170, error]);
      await job.ends(first);
    } else {
      expect([frozen?.code, frozen?.code === 0 ? '' : frozen?.stderr, await first.code]).toEqual([0, '', 137]);
      const second = await job.start();
      expect([await second.code, errorOf(second.stderr())]).toEqual([171, error]);
    }
  });
}

const words = (options = ''): string[] => options.split(' ');

function errorOf(stderr: string): string | undefined {
  return /^Error: .*$/m.exec(stderr)?.[0];
}
