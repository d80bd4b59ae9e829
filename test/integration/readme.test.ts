// SPDX-License-Identifier: Apache-2.0
// What the documents tell a user to type: it is run as it stands there, but for places, and says what it is shown to say.
import { chmodSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, test } from '@jest/globals';
import { withBed } from '../support/bed.js';
import { DOCUMENTS, blocks, commandLines, typed } from '../support/document.js';
import { PATH_OF_JOBS } from '../support/place.js';
import { fastfreeze, packageDir } from '../support/stage.js';

/** The names that ours go by, and which of our commands each is. */
const PROGRAMS = new Map([
  ['fastfreeze', []],
  ['ff_daemon', ['daemon']],
]);

/** Command lines of ours in a document, from the command's name on: `run ...` of `bin/fastfreeze run ...`. `&` and `>FILE` are the shell's. */
function commands(document: string): string[][] {
  return commandLines(document).flatMap((line) => {
    const [, program = '', rest = ''] = /^(?:exec |\w+=\S+ )*(?:\S*\/)?(fastfreeze|ff_daemon)\b(.*)$/.exec(line) ?? [];
    const words = rest
      .replace(/ (?:&|> ?\S+)$/, '')
      .split(/\s+/)
      .slice(1);
    const name = PROGRAMS.get(program);
    return name === undefined ? [] : [[...name, ...words]];
  });
}

test('every command line in the documents has a command and options that there are', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const found = DOCUMENTS.flatMap((document) => commands(document));
    expect(found.length).toBeGreaterThan(25);
    const helps = new Map<string, string>();
    for (const name of new Set(found.map(nameOf))) {
      const answer = await place.fastfreeze([...name.split(' '), '--help']);
      expect([name, answer.code]).toEqual([name, 0]);
      helps.set(name, answer.stdout);
    }
    const unknown = found.flatMap((words) => {
      const command = nameOf(words);
      const end = words.indexOf('--');
      const options = (end === -1 ? words : words.slice(0, end)).filter((word) => /^--?[a-z]/.test(word));
      const names = options.map((word) => word.replace(/=.*$/, ''));
      return names
        .filter((name) => !new RegExp(`(^|[\\s,])${name}\\b`, 'm').test(helps.get(command) ?? ''))
        .map((name) => `${command} ${name}`);
    });
    expect(unknown).toEqual([]);
  });
}, 60_000);

/** What has a --help of its own. */
function nameOf([command = '', verb = '']: readonly string[]): string {
  return command === 'batch' && (verb === 'job' || verb === 'job-definition') ? `${command} ${verb}` : command;
}

/** Without what differs from run to run. */
function shape(line: string): string {
  return line
    .replace(/file:\S+/g, 'URL')
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'WHEN')
    .replace(/\d{8}T\d{6}Z-[0-9a-f]{12}/g, 'PREFIX')
    .replace(/\d+(\.\d+)?/g, 'N');
}

test('the README’s first session goes as it is shown', async () => {
  await withBed('user', async (bed) => {
    const session = blocks('README.md').filter((lines) => lines.some((line) => line.startsWith('$ ')));
    const [first = [], second = [], third = []] = session;
    expect(session).toHaveLength(3);
    const script = first[first.findIndex((line) => line.startsWith('$ cat count.sh')) + 1] ?? '';
    expect(script).toMatch(/seq 1 12/);
    bed.write('work/count.sh', `${script.replace('sleep 1', 'sleep 0.5')}\n`);
    const words = (lines: readonly string[], name: string): string[] => {
      const line = lines.find((one) => one.startsWith(`$ fastfreeze ${name}`));
      return (line ?? '').replace('$ fastfreeze ', '').replaceAll('/home/ann/images', bed.path('images')).split(' ');
    };
    const place = await bed.place();
    const start = words(first, 'run');
    expect(words(third, 'run')).toEqual(start);

    const job = bed.start(place, start);
    await job.prints(/^step 5$/m);
    const frozen = await place.fastfreeze(words(second, 'checkpoint'));
    expect(shape(frozen.stderr.trim())).toBe(shape(second.find((line) => line.startsWith('Checkpoint to')) ?? ''));
    const shown = (lines: readonly string[]): string[] =>
      lines.filter((line) => line.startsWith('[ff.run]')).map(shape);
    expect(await job.ends()).toMatchObject({ code: Number(first.at(-2)) });
    expect(shown(job.stderr.split('\n'))).toEqual(shown(first));
    const objects = second.filter((line) => line.startsWith('-rw')).map((line) => line.split(' ').at(-1) ?? '');
    // How many shards there are is a matter of the moment.
    const kinds = (names: readonly string[]): string[] => [...new Set(names.map(shape))];
    expect(kinds(bed.list('images', 'doc'))).toEqual(kinds(objects));

    const again = bed.start(place, start);
    expect(await again.ends()).toMatchObject({ code: Number(third.at(-2)) });
    expect(shown(again.stderr.split('\n'))).toEqual(shown(third));
    expect(job.stdout + again.stdout).toBe(Array.from({ length: 12 }, (_, i) => `step ${i + 1}\n`).join(''));
  });
}, 60_000);

test('what the README tells to type in a checkout works there', async () => {
  await withBed('user', async (bed) => {
    const lines = [
      `cd ${packageDir()}`,
      typed('README.md', 'bin/fastfreeze install', 'bin/fastfreeze doctor'),
      // Where a user has it, it is there.
      'mkdir -p ~/.local/bin',
      typed('README.md', 'ln -s "$PWD'),
      'cd /',
      typed('docs/install.md', 'fastfreeze install'),
    ];
    const env = { HOME: bed.path('work'), PATH: `${bed.path('work')}/.local/bin:${PATH_OF_JOBS}` };
    const place = await bed.place();
    const answer = await place.exec(['sh', '-euc', lines.join('\n')], { env });
    expect(answer).toMatchObject({ code: 0, stderr: '' });
    expect(answer.stdout).toMatch(/^ok +canary /m);
  });
}, 60_000);

test('the demo', async () => {
  await withBed('root', async (bed) => {
    const env = {
      HOME: bed.path('work'),
      PATH: process.env['PATH'] ?? '',
      FF_NODE: '',
      NPM_CONFIG_UPDATE_NOTIFIER: 'false',
    };
    const line = `cd '${process.cwd()}' && ${typed('README.md', 'npm run demo')}`;
    const answer = await (await bed.place()).exec(['sh', '-c', line], { env, timeoutMs: 240_000 });
    expect([answer.code, answer.stderr]).toEqual([0, '']);
    expect(answer.stdout).toMatch(
      /frozen after line \d+ and line \d+: none lost, none repeated, every checksum right\n$/,
    );
  });
}, 300_000);

test('the other documents’ commands of `batch`', async () => {
  await withBed('user', async (bed) => {
    chmodSync(bed.write('work/solve', '#!/bin/sh\necho "solved $*"\n'), 0o755);
    const base = typed('docs/batch.md', 'export FASTFREEZE_IMAGE_BASE=').replace(
      's3://bucket/jobs',
      `file:${bed.path('jobs')}`,
    );
    const env = { PATH: `${dirname(fastfreeze()[0] ?? '')}:${PATH_OF_JOBS}`, FASTFREEZE_JOB_ID: 'seven' };
    const place = await bed.place();
    const type = async (lines: string): Promise<string> => {
      const answer = await place.exec(['sh', '-euc', lines], { env });
      expect([lines, answer]).toMatchObject([lines, { code: 0 }]);
      return answer.stdout;
    };
    expect(await type(`${base}\n${typed('docs/batch.md', 'fastfreeze batch run')}`)).toBe('solved in.dat\n');
    await type(typed('docs/batch.md', 'fastfreeze batch job-definition aws', 'fastfreeze batch job gcp'));
    const written = (name: string): unknown => JSON.parse(readFileSync(bed.path('work', name), 'utf8'));
    expect(written('job-definition.json')).toMatchObject({ jobDefinitionName: 'solve' });
    expect(written('job.json')).toMatchObject({ taskGroups: [{ taskCount: 1 }] });
  });
}, 60_000);

test('the README’s other runs run', async () => {
  await withBed('user', async (bed) => {
    bed.write('work/solve', '#!/bin/sh\necho solved\n');
    bed.write('work/count.sh', 'echo solved\n');
    const place = await bed.place();
    await place.exec(['chmod', '+x', bed.path('work', 'solve')]);
    mkdirSync(bed.path('work', 'job'));
    const runs = commands('README.md').filter((words) => words[0] === 'run' && words.join(' ').includes('s3://'));
    expect(runs.length).toBeGreaterThan(2);
    for (const words of runs) {
      const line = words.map((word) =>
        word.replace(/^s3:\/\/.*/, `file:${bed.path('other')}`).replace('/data/job', bed.path('work', 'job')),
      );
      const job = bed.start(place, [...line]);
      expect([line, await job.ends(), job.stdout]).toMatchObject([line, { code: 0 }, 'solved\n']);
    }
  });
}, 60_000);
