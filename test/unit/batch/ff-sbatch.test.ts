// SPDX-License-Identifier: Apache-2.0
/* What ff-sbatch makes of a command line of sbatch's: with an sbatch and a fastfreeze that show what they are given. */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';

const FF_SBATCH = join(process.cwd(), 'batch-adapters/slurm/ff-sbatch');
let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ff-sbatch-'));
  // The job script is run at once, as Slurm would do later.
  program(
    'sbatch',
    `for word; do printf 'option %s\\n' "$word"; done\ncase "$*" in *' -- '*) echo "base $FASTFREEZE_IMAGE_BASE" ;; *) sh ;; esac`,
  );
  program('fastfreeze', 'while [ "$1" != -- ]; do printf "ours %s\\n" "$1"; shift; done\nshift\nexec "$@"');
  program('show', 'for word; do printf "<%s>" "$word"; done');
});
afterAll(() => {
  rmSync(directory, { recursive: true });
});

function program(name: string, body: string, first = '#!/bin/sh'): void {
  writeFileSync(join(directory, name), `${first}\n${body}\n`, { mode: 0o755 });
}

interface Answer {
  readonly code: number | null;
  readonly options: readonly string[];
  readonly ours: readonly string[];
  /** What the job has said. */
  readonly said: string;
  readonly told: string;
}

function submit(words: readonly string[], env: Readonly<Record<string, string>> = {}): Answer {
  const base = { PATH: `${directory}:/usr/bin:/bin`, FASTFREEZE_IMAGE_BASE: 's3://b/j', LANG: 'C.UTF-8' };
  const options = { cwd: directory, encoding: 'utf8', env: { ...base, ...env } } as const;
  const { status, stdout, stderr } = spawnSync(FF_SBATCH, words, options);
  const lines = stdout.split('\n');
  const of = (kind: string): string[] =>
    lines.filter((line) => line.startsWith(`${kind} `)).map((line) => line.slice(kind.length + 1));
  const said = lines.filter((line) => !/^(?:option|ours) /.test(line)).join('\n');
  return { code: status, options: of('option'), ours: of('ours'), said, told: stderr };
}

const noticeOf = ({ options }: Answer): string | undefined =>
  options.map((option) => /^--signal=B:USR1@(\d+)$/.exec(option)?.[1]).find((found) => found !== undefined);

describe('ff-sbatch', () => {
  test('adds what a job needs, and hands on what sbatch is given', () => {
    const answer = submit([
      '-n4',
      '--time',
      '1:00:00',
      '-J',
      "it's",
      '--exclusive',
      '--mem=4G',
      'show',
      '--time',
      '-x',
      'a b',
    ]);
    expect(answer).toMatchObject({ code: 0, ours: ['batch', 'run'], said: '<--time><-x><a b>' });
    expect(answer.options).toEqual([
      ...['-n4', '--time', '1:00:00', '-J', "it's", '--exclusive', '--mem=4G'],
      ...['--requeue', '--open-mode=append', '--signal=B:USR1@127'],
    ]);
    expect(submit(['show']).options).toContain('--job-name=show');
  });

  test("does not hand on which task of an array it is called in: the job would be known by that task's name", () => {
    const env = { SLURM_ARRAY_JOB_ID: '7', SLURM_ARRAY_TASK_ID: '4', SLURM_HET_JOB_ID: '8', SLURM_CLUSTER_NAME: 'c' };
    const names = '${SLURM_ARRAY_JOB_ID-no} ${SLURM_ARRAY_TASK_ID-no} ${SLURM_HET_JOB_ID-no} $SLURM_CLUSTER_NAME';
    expect(submit(['sh', '-c', `echo "${names}"`], env)).toMatchObject({ code: 0, said: 'no no no c\n' });
  });

  test('any words of a command arrive as they are', () => {
    const word = fc.string({ unit: 'grapheme', minLength: 1 }).filter((text) => !/[\0\n]/.test(text));
    fc.assert(
      fc.property(fc.array(word, { maxLength: 4 }), (words) => {
        expect(submit(['--', 'show', ...words]).said).toBe(words.map((one) => `<${one}>`).join(''));
      }),
      { numRuns: 15 },
    );
  });

  test.each<[string, string[], Record<string, string>, string]>([
    ['5 s and 0.03 s for each MiB', ['--mem=16G'], {}, '496'],
    ['60 s at least', ['--mem', '100M'], {}, '60'],
    ['for all CPUs', ['--mem-per-cpu=2G', '-c', '4', '-n2'], {}, '496'],
    ['120 s where nothing is known', [], {}, '120'],
    ['half of the limit at most', ['--mem=16G', '-t', '10'], {}, '300'],
    ['a limit of days', ['--mem=16G', '--time=1-0'], {}, '496'],
    ['a limit in the environment', [], { SBATCH_TIMELIMIT: '0:02:00' }, '60'],
    ['as asked', ['--mem=16G', '--ff-notice', '33'], {}, '33'],
    ['a size with its unit in full', ['--mem=16GB'], {}, '496'],
    ['leading zeros', ['--mem-per-cpu=02G', '-c', '08', '-n01'], {}, '496'],
    ['as asked by the environment', [], { FF_SBATCH_NOTICE: '44' }, '44'],
  ])('notice: %s', (_what, words, env, expected) => {
    expect(noticeOf(submit([...words, 'show'], env))).toBe(expected);
  });

  test('notice: with a spool twice as much, unless slurm.conf has our epilog to finish the upload', () => {
    program('spools.sh', 'exec fastfreeze batch run --spool /scratch -- ./solve');
    const asked = [
      ['--ff-run', '--spool /scratch', 'show'],
      ['--ff-run=--keep 1 --spool=/scratch', 'show'],
      ['spools.sh'],
    ];
    const notices = (config: string): (string | undefined)[] => {
      program('scontrol', `[ "$*" = 'show config' ] && printf '%s\\n' ${config}`);
      return asked.map((words) => noticeOf(submit(['--mem=16G', ...words])));
    };
    try {
      for (const config of ["'Epilog = (null)'", "'Epilog = /site/epilog' 'EpilogSlurmctld = /opt/fastfreeze/x'"]) {
        expect(notices(config)).toEqual(['991', '991', '991']);
      }
      const epilog = '/opt/fastfreeze/batch-adapters/slurm/epilog';
      for (const config of [`'Epilog = ${epilog}'`, `'Epilog[0] = /site/epilog' 'Epilog[1] = ${epilog}'`]) {
        expect(notices(config)).toEqual(['496', '496', '496']);
      }
    } finally {
      rmSync(join(directory, 'scontrol'));
    }
    expect(noticeOf(submit(['--mem=16G', 'spools.sh']))).toBe('991');
  });

  test('what the user has chosen stays: by option, variable or #SBATCH line', () => {
    const OURS = /^--(?:signal=B:USR1|requeue|open-mode=append)/;
    const added = (words: string[], env = {}): string[] => submit(words, env).options.filter((one) => OURS.test(one));
    expect(added(['--signal=USR2@9', '--no-requeue', '--open-mode=truncate', 'show'])).toEqual([]);
    expect(added(['show'], { SBATCH_SIGNAL: 'B:USR2', SBATCH_NO_REQUEUE: '1', SBATCH_OPEN_MODE: 'a' })).toEqual([]);
    program(
      'own.sh',
      '#SBATCH --signal=B:USR2@9 --no-requeue\n\n# x\n#SBATCH --open-mode truncate # y\necho it\n#SBATCH -t 1',
    );
    expect(added(['./own.sh'])).toEqual([]);
  });

  test('a script of a shell travels in the job, with its #SBATCH lines, and cannot tell the difference', () => {
    program(
      'job.sh',
      '#SBATCH --mem=16G\nshow "$0" "$@" "it\'s $((1 + 1))"\nEND_OF_THE_SCRIPT=1\nEND_OF_THE_SCRIPT\nexit 0',
      '#!/usr/bin/env bash',
    );
    const printed = execFileSync(FF_SBATCH, ['--ff-print', 'job.sh', 'a b'], {
      cwd: directory,
      encoding: 'utf8',
      env: { PATH: `${directory}:/usr/bin:/bin`, FASTFREEZE_IMAGE_BASE: '/i' },
    });
    expect(printed).toMatch(/<<SCRIPT\n#!\/bin\/sh\n#SBATCH --mem=16G\n/);
    const answer = submit(['job.sh', 'a b']);
    expect(answer).toMatchObject({ code: 0, said: "<job.sh><a b><it's 2>" });
    expect(noticeOf(answer)).toBe('496');
  });

  test('a script that runs fastfreeze itself is submitted as it is', () => {
    program('plain.sh', 'exec fastfreeze batch run -- ./solve');
    expect(submit(['-p', 'q', 'plain.sh', 'a']).options.slice(-3)).toEqual(['--', 'plain.sh', 'a']);
    const base = ['--ff-image-base', "/it's", 'plain.sh'];
    expect(submit(base).said).toBe("base /it's\n");
    expect(submit(['--ff-print', ...base]).said).toMatch(
      /^FASTFREEZE_IMAGE_BASE='\/it'\\''s' sbatch .* -- 'plain\.sh'$/m,
    );
  });

  test('a script that is no program is read by its interpreter', () => {
    program('data.awk', 'BEGIN { print "awk", ARGV[1] }', '#!/usr/bin/awk -f');
    chmodSync(join(directory, 'data.awk'), 0o644);
    expect(submit(['data.awk', 'a b'])).toMatchObject({ code: 0, said: 'awk a b\n' });
  });

  test('options for fastfreeze, an image base, a line to wrap', () => {
    const run = '--checkpoint-every auto --spool /scratch';
    const answer = submit(['--ff-run', run, '--ff-image-base=/images', '--wrap', 'echo $FASTFREEZE_IMAGE_BASE']);
    expect(answer).toMatchObject({ code: 0, ours: ['batch', 'run', ...run.split(' ')], said: '/images\n' });
    expect(answer.options).toContain('--job-name=wrap');
    const names = (words: string[], env = {}): string[] =>
      submit([...words, '--wrap', ':'], env).options.filter((option) => option.startsWith('--job-name'));
    expect(names(['-J', 'mine'])).toEqual([]);
    expect(names([], { SBATCH_JOB_NAME: 'mine' })).toEqual([]);
  });

  test('what is wrong is said, with what to do, before anything is submitted', () => {
    const refused = (words: string[], env = {}): string => {
      const answer = submit(words, env);
      expect([answer.code, answer.options]).toEqual([2, []]);
      return answer.told;
    };
    writeFileSync(join(directory, 'data'), 'x');
    expect(refused([])).toMatch(/^Error: there is no command to submit\nTry: /);
    expect(refused(['--mem'])).toMatch(/--mem needs a value/);
    expect(refused(['--ff-wrong', 'show'])).toMatch(/--ff-wrong is no option/);
    expect(refused(['--ff-notice=0', 'show'])).toMatch(/a notice of 0 seconds/);
    expect(refused(['no-such-command'])).toMatch(/no command no-such-command/);
    expect(refused(['./data'])).toMatch(/neither a script .* nor a program/);
    program('own-run.sh', 'exec fastfreeze batch run -- ./solve');
    expect(refused(['--ff-run', '--keep 3', 'own-run.sh'])).toMatch(/--ff-run does not get there\nTry: write --keep 3/);
    expect(refused(['--export=NONE', '--ff-image-base=/i', 'own-run.sh'])).toMatch(/--export=NONE keeps/);
    expect(refused(['--wrap', 'date', 'show'])).toMatch(/beside --wrap/);
    expect(refused(['show'], { FASTFREEZE_IMAGE_BASE: '' })).toMatch(/nothing says where images go\nTry: export/);
    expect(submit(['--help']).said).toMatch(/^Usage: ff-sbatch/);
  });
});
