// SPDX-License-Identifier: Apache-2.0
import { describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { FastFreezeError } from '../../../src/base/errors.js';
import { checkpointWords, runWords } from '../../../src/daemon/command-line.js';
import { parseCheckpointRequest, parseRunRequest } from '../../../src/daemon/request.js';

jest.setTimeout(30_000);

const run = (fields: object): string => JSON.stringify({ app_args: 'true', image_url: 'file:/jobs/a', ...fields });

/** The message of the refusal; anything else that is thrown is a bug. */
function refusal(parse: () => unknown): string | undefined {
  try {
    parse();
    return undefined;
  } catch (error) {
    if (error instanceof FastFreezeError && error.code === 'usage') return error.message;
    throw error;
  }
}

describe('a run request', () => {
  test('with every field becomes the command line of run', () => {
    const request = parseRunRequest(
      run({
        app_args: 'python3 "a b.py"',
        image_url: 'file:/jobs/my%20job',
        on_app_ready: '-touch x',
        passphrase_file: '/dev/shm/key',
        preserved_paths: '/var/a:/var/b',
        no_restore: true,
        allow_bad_image: true,
        leave_stopped: true,
        verbose: 7,
        envs: ['A=1', 'B=c=d', 'E='],
      }),
    );
    expect(request.envs).toEqual({ A: '1', B: 'c=d', E: '' });
    expect(runWords(request, 3)).toEqual([
      ...['run', '--notify-fd=3', '--container=my job', '--image-url=file:/jobs/my%20job'],
      ...['--passphrase-file=/dev/shm/key', '--preserve-path=/var/a:/var/b', '--verbose', '--verbose'],
      ...['--no-restore', '--allow-bad-image-version', '--leave-stopped', '--on-app-ready=-touch x'],
      ...['--', 'python3', 'a b.py'],
    ]);
  });

  test('with the least: nothing is asked for that was not', () => {
    const words = ['run', '--notify-fd=3', '--container=a', '--image-url=s3://bucket/a', '--'];
    for (const app_args of ['', '  ', []]) {
      expect(runWords(parseRunRequest(run({ app_args, image_url: 's3://bucket/a' })), 3)).toEqual(words);
    }
    const nulls = { on_app_ready: null, preserved_paths: null, no_restore: null, verbose: null, envs: null };
    expect(parseRunRequest(run(nulls))).toEqual(parseRunRequest(run({})));
  });

  test('takes words as an array, and paths too', () => {
    const request = parseRunRequest(run({ app_args: ['sh', '-c', 'echo "$1"', ''], preserved_paths: ['/a', '/b'] }));
    expect(request.command).toEqual(['sh', '-c', 'echo "$1"', '']);
    expect(runWords(request, 3)).toEqual(expect.arrayContaining(['--preserve-path=/a', '--preserve-path=/b']));
  });

  test.each<[string, string]>([
    ['', 'it is not JSON'],
    ['{"app_args": "x"', 'it is not JSON'],
    ['[]', 'not an array'],
    ['null', 'not null'],
    ['"run"', 'not a string'],
    ['{}', 'image_url: it is missing'],
    ['{"image_url":"file:/a"}', 'app_args: it is missing'],
    ['{"image_url":"file:/a","app_args":null}', 'app_args: it is missing'],
    [run({ colour: 'red' }), '"colour": there is no such field'],
    ['{"__proto__":1}', '"__proto__": there is no such field'],
    [run({ leave_running: true }), '"leave_running": there is no such field'],
    [run({ app_args: 3 }), 'app_args: expected a string or an array of strings, not a number'],
    [run({ app_args: ['a', 3] }), 'app_args: expected a string, not a number'],
    [run({ app_args: "it's" }), 'app_args: a quote is not closed'],
    [run({ app_args: '"" x' }), 'app_args: the command is an empty word'],
    [run({ app_args: [''] }), 'app_args: the command is an empty word'],
    [run({ app_args: 'a\0b' }), 'app_args: a null character'],
    [run({ app_args: ['\ud800'] }), 'app_args: it is not Unicode'],
    [run({ image_url: 'jobs/a' }), 'image_url: it is neither a URL nor an absolute path'],
    [run({ image_url: 'ftp://host/a' }), 'image_url: ftp: is not a kind of store'],
    [run({ image_url: 'file:/%00' }), 'image_url: '],
    [run({ image_url: '' }), 'image_url: it is empty'],
    [run({ image_url: `file:/${'a'.repeat(101)}` }), 'image_url: its last part must be a name of 1 to 100 characters'],
    [run({ on_app_ready: 1 }), 'on_app_ready: expected a string'],
    [run({ passphrase_file: '' }), 'passphrase_file: it is empty'],
    [run({ preserved_paths: {} }), 'preserved_paths: expected a string of paths'],
    [run({ preserved_paths: [''] }), 'preserved_paths: it is empty'],
    [run({ no_restore: 'yes' }), 'no_restore: expected true or false, not a string'],
    [run({ allow_bad_image: 1 }), 'allow_bad_image: expected true or false'],
    [run({ leave_stopped: [] }), 'leave_stopped: expected true or false, not an array'],
    [run({ verbose: true }), 'verbose: expected a whole number from 0 to 255, not a boolean'],
    [run({ verbose: 1.5 }), 'verbose: expected a whole number from 0 to 255, not 1.5'],
    [run({ verbose: -1 }), 'verbose: expected a whole number'],
    [run({ envs: 'A=1' }), 'envs: expected an array'],
    [run({ envs: [1] }), 'envs: expected a string, not a number'],
    [run({ envs: ['A=1', 'B'] }), 'envs: item 2 is not "NAME=VALUE"'],
    [run({ envs: ['=x'] }), 'envs: item 1 is not "NAME=VALUE"'],
    [run({ envs: ['FF_STATE_DIR=/x'] }), 'envs: FF_STATE_DIR would hide the job'],
  ])('%s is refused', (body, message) => {
    expect(refusal(() => parseRunRequest(body))).toContain(message);
  });

  test('a secret in a wrong place is not in the refusal', () => {
    expect(refusal(() => parseRunRequest(run({ envs: ['hunter2'] })))).not.toContain('hunter2');
    expect(refusal(() => parseRunRequest('{"envs":["PASSWORD=hunter2"'))).not.toContain('hunter2');
  });
});

describe('a checkpoint request', () => {
  test('with every field becomes the command line of checkpoint', () => {
    const request = parseCheckpointRequest(
      JSON.stringify({
        image_url: 'gs://bucket/b',
        passphrase_file: '/k',
        preserved_paths: '/a',
        leave_running: true,
        num_shards: 2,
        cpu_budget: 'high',
        verbose: 1,
        envs: ['A=b'],
      }),
    );
    expect(request.envs).toEqual({ A: 'b' });
    expect(checkpointWords(request, 'job')).toEqual([
      ...['checkpoint', '--json', '--container=job', '--image-url=gs://bucket/b', '--passphrase-file=/k'],
      ...['--preserve-path=/a', '--verbose', '--leave-running', '--num-shards=2', '--cpu-budget=high'],
    ]);
  });

  test.each(['', ' \n', '{}', '{"num_shards":null}'])('%j asks for a plain one', (body) => {
    expect(checkpointWords(parseCheckpointRequest(body), 'job')).toEqual(['checkpoint', '--json', '--container=job']);
  });

  test.each<[string, string]>([
    ['{', 'it is not JSON'],
    ['{"app_args":"x"}', '"app_args": there is no such field'],
    ['{"num_shards":0}', 'num_shards: expected a whole number from 1 to 65535, not 0'],
    ['{"num_shards":"4"}', 'num_shards: expected a whole number from 1 to 65535, not a string'],
    ['{"cpu_budget":"huge"}', 'cpu_budget: expected "low", "medium" or "high"'],
    ['{"leave_running":1}', 'leave_running: expected true or false'],
    ['{"image_url":"x"}', 'image_url: it is neither'],
  ])('%s is refused', (body, message) => {
    expect(refusal(() => parseCheckpointRequest(body))).toContain(message);
  });
});

describe('nonsense', () => {
  const names = ['app_args', 'image_url', 'on_app_ready', 'passphrase_file', 'preserved_paths', 'no_restore'];
  const more = ['allow_bad_image', 'leave_stopped', 'verbose', 'envs', 'leave_running', 'num_shards', 'cpu_budget'];
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 3 }),
    fc.constantFrom('file:/jobs/a', 's3://bucket/a', "it's", ['A=b'], ['sh', '-c', 'x'], 3, true),
    fc.string({ unit: 'binary' }),
    fc.array(fc.string({ unit: 'binary' })),
  );
  const body = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.json(),
    fc.dictionary(fc.oneof(fc.constantFrom(...names, ...more), fc.string()), value).map((one) => JSON.stringify(one)),
    fc.dictionary(fc.constantFrom(...names), value).map((one) => run(one)),
  );

  test('is refused with a reason, or becomes words that can be given to a process', () => {
    fc.assert(
      fc.property(body, (text) => {
        for (const parse of [
          () => runWords(parseRunRequest(text), 3),
          () => checkpointWords(parseCheckpointRequest(text), 'job'),
        ]) {
          let words: readonly string[] = [];
          const message = refusal(() => (words = parse()));
          if (message !== undefined) expect(message).toMatch(/^cannot understand \S.*: \S/u);
          for (const word of words) {
            expect(word).not.toContain('\0');
            expect(Buffer.from(word).toString()).toBe(word);
          }
          // Nothing of the request can pass for an option of ours: those end at the `--`.
          const end = words.indexOf('--');
          if (words[0] === 'run')
            expect(words.slice(0, end).every((word, i) => i === 0 || word.startsWith('--'))).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });
});
