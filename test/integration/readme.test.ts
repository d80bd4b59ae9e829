// SPDX-License-Identifier: Apache-2.0
// What the documents tell a user to type: it is run as it stands there, but for places, and says what it is shown to say.
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { withBed } from '../support/bed.js';
import { blocks } from '../support/document.js';

/** Command lines of ours in a document: `fastfreeze COMMAND ...`, with or without a prompt; continued lines are joined. */
function commands(document: string): string[][] {
  return blocks(document)
    .flatMap((lines) => lines.join('\n').replaceAll('\\\n', ' ').split('\n'))
    .map((line) => /^(?:\$ )?(?:\w+=\S+ )*(?:\S*\/)?fastfreeze ([a-z].*)$/.exec(line)?.[1])
    .filter((line) => line !== undefined)
    .map((line) => line.replace(/\s+#.*$/, '').split(/\s+/));
}

const DOCUMENTS = [
  'README.md',
  ...readdirSync(join(process.cwd(), 'docs')).map((name) => `docs/${name}`),
  ...readdirSync(join(process.cwd(), 'batch-adapters')).map((name) => `batch-adapters/${name}/README.md`),
];

test('every command line in the documents has a command and options that there are', async () => {
  await withBed('root', async (bed) => {
    const place = await bed.place();
    const found = DOCUMENTS.flatMap((document) => commands(document));
    expect(found.length).toBeGreaterThan(10);
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
