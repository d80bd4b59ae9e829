// SPDX-License-Identifier: Apache-2.0
/* Every command as a user types it, as far as it goes without a job. */
import { beforeAll, describe, expect, jest, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { askScript, makeDirectory, moduleUrl } from '../linux/support.js';

jest.setTimeout(60_000);

interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const COMMANDS = [
  'run',
  'batch',
  'checkpoint',
  'extract',
  'list',
  'verify',
  'cp',
  'prune',
  'inspect',
  'wait',
  'status',
  'daemon',
  'install',
  'doctor',
];

/** Command lines that are wrong, and what the error must name. */
const WRONG: readonly (readonly [string, readonly string[]])[] = [
  ['explode', ["unknown command 'explode'", 'run']],
  ['run', ['neither a command to start nor an image URL']],
  ['run --nonsense cmd', ['--nonsense']],
  ['run --keep 0 cmd', ['--keep', '"0"']],
  ['run --keep many cmd', ['--keep', '"many"']],
  ['run --num-shards=-1 cmd', ['--num-shards', '"-1"']],
  ['run --generation x -i file:/x', ['--generation', '"x"']],
  ['run --checkpoint-every soon cmd', ['--checkpoint-every', '"soon"']],
  ['run --mean-time-to-preemption 2h cmd', ['--mean-time-to-preemption', '--checkpoint-every auto']],
  ['run --checkpoint-every auto --mean-time-to-preemption x cmd', ['--mean-time-to-preemption', '"x"']],
  ['run --checkpoint-on SIGKILL cmd', ['--checkpoint-on', '"SIGKILL"']],
  ['run --checkpoint-on SIGINT,NONSENSE cmd', ['--checkpoint-on', '"NONSENSE"']],
  ['run --cpu-budget huge cmd', ['--cpu-budget', '"huge"']],
  ['run --container a/b cmd', ['--container', '"a/b"']],
  ['run -i file:/x --image-base file:/y cmd', ['--image-url']],
  ['run --image-base file:/y cmd', ['--job-id']],
  ['run --job-id x cmd', ['--image-base']],
  ['run --image-base file:/y --job-id a/b cmd', ['--job-id', '"a/b"']],
  ['run --image-base s3://bucket --job-id .. cmd', ['--job-id', '".."']],
  ['batch', ['run or explain']],
  ['batch explode', ['"explode"', 'run and explain']],
  ['batch explain word', ['"word"', 'no words']],
  ['batch run --json cmd', ['--json', 'batch explain']],
  ['batch run --adapter lsf cmd', ['--adapter', '"lsf"']],
  ['batch run --requeue-exit-code 256 cmd', ['--requeue-exit-code', '"256"']],
  ['batch run --requeue-exit-code 171 cmd', ['--requeue-exit-code', '"171"']],
  ['batch run --notice-on KILL cmd', ['--notice-on', '"KILL"']],
  ['batch run --notice-from oracle cmd', ['--notice-from', '"oracle"']],
  ['batch run --time-limit soon cmd', ['--time-limit', '"soon"']],
  ['batch run --notice-window x cmd', ['--notice-window', '"x"']],
  ['batch run --image-url /x --job-id y cmd', ['--image-url', '--image-base and --job-id']],
  ['batch run --adapter none cmd', ['nothing says where images go', 'FASTFREEZE_IMAGE_BASE']],
  ['batch run --adapter none --image-base /x cmd', ['names this job', '--job-id']],
  ['batch run --adapter kubernetes --image-base /x cmd', ['names this job', 'FASTFREEZE_JOB_ID from fieldRef']],
  ['checkpoint --cpu-budget none', ['--cpu-budget', '"none"']],
  ['checkpoint --num-shards 0 job', ['--num-shards', '"0"']],
  ['checkpoint a b', ['a b', 'more than one name']],
  ['checkpoint --nonsense', ['--nonsense']],
  ['wait --timeout never', ['--timeout', '"never"']],
  ['wait -n a b', ['more than one name']],
  ['status a b', ['more than one name']],
  ['status --jsno', ['--jsno']],
  ['extract', ['exactly one image URL']],
  ['extract file:/a file:/b', ['exactly one image URL']],
  ['extract -i file:/a --generation 0', ['--generation', '"0"']],
  ['list', ['exactly one URL']],
  ['list /a /b', ['exactly one URL']],
  ['list s3:///jobs', ['it has no bucket']],
  ['list ftp://host/jobs', ['ftp: is not a kind of store']],
  ['list relative', ['neither a URL nor an absolute path']],
  ['verify', ['exactly one URL']],
  ['verify /a --generation 0', ['--generation', '"0"']],
  ['verify /a --all --generation 1', ['--all']],
  ['verify ftp://host/b', ['ftp: is not a kind of store']],
  ['cp /a', ['a source URL and a destination URL']],
  ['cp /a /b /c', ['a source URL and a destination URL']],
  ['cp /a file:///a/', ['the same place']],
  ['cp /a /b --generation x', ['--generation', '"x"']],
  ['prune /a', ['neither --keep nor --older-than']],
  ['prune --keep 1', ['exactly one URL']],
  ['prune /a --keep 0', ['--keep', '"0"']],
  ['prune /a --older-than x', ['--older-than', '"x"']],
  ['inspect', ['exactly one URL']],
  ['inspect /a --generation=-1', ['--generation', '"-1"']],
  ['inspect /a --all', ['--all']],
  ['run --notify-fd 1 cmd', ['--notify-fd', '"1"']],
  ['daemon word', ['word', 'it takes no words']],
  ['daemon --port 0', ['--port 0', 'it needs a token']],
  ['daemon --port 65536', ['--port', '"65536"']],
  ['daemon --host ::1', ['--host', 'it goes with --port']],
  ['daemon --port 1 --host nowhere', ['--host', '"nowhere"']],
  ['daemon --port 1 --socket /x', ['--socket', '--port']],
  ['daemon --socket=', ['--socket', 'expected a path']],
  ['daemon --token-file /no/such', ['--token-file /no/such', 'it does not exist']],
  ['daemon --exec /no/such', ['--exec /no/such', 'it does not exist']],
  ['daemon --decider /x', ['--decider', 'without --exec']],
  ['install --from x', ['--sha256']],
  ['install word', ['word']],
  ['doctor --jsno', ['--jsno']],
];

const lines = [
  '',
  '--help',
  '-h',
  'help',
  'help run',
  '--version',
  ...COMMANDS.flatMap((name) => [`${name} --help`, `${name} -h`]),
  'run --help -- cmd',
  ...WRONG.map(([line]) => line),
];
let said: ReadonlyMap<string, Said>;

beforeAll(async () => {
  // One process for all of them: each sees a standard output and error of its own.
  const answer = await askScript(
    `
    import { main } from '${moduleUrl('cli/main.js')}';
    const answers = [];
    for (const line of ${JSON.stringify(lines)}) {
      const said = { stdout: '', stderr: '' };
      const real = { stdout: process.stdout.write, stderr: process.stderr.write };
      for (const name of ['stdout', 'stderr']) process[name].write = (text) => { said[name] += text; return true; };
      try { said.code = await main(line === '' ? [] : line.split(' ')); }
      finally { for (const name of ['stdout', 'stderr']) process[name].write = real[name]; }
      answers.push([line, said]);
    }
    process.stdout.write(JSON.stringify(answers));`,
    [],
    { env: { FF_STATE_DIR: join(makeDirectory(), 's'), FF_LOG_DIR: makeDirectory() }, timeoutMs: 50_000 },
  );
  said = new Map(answer as [string, Said][]);
});

const of = (line: string): Said => {
  const found = said.get(line);
  if (found === undefined) throw new Error(`not asked: ${line}`);
  return found;
};

describe('help', () => {
  test('lists the commands, on standard output, and is a success unless nothing was asked', () => {
    for (const line of ['', '--help', '-h', 'help']) {
      for (const name of COMMANDS) expect(of(line).stdout).toContain(`\n  ${name} `);
      expect(of(line).stderr).toBe('');
      expect(of(line).code).toBe(line === '' ? 2 : 0);
    }
    expect(of('help run')).toEqual(of('run --help'));
    expect(of('--version')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^fastfreeze \d+\.\d+\.\d+\n$/) as unknown,
    });
  });

  test.each(COMMANDS)('of %s has usage, options and exit status, and fits a terminal', (name) => {
    const { code, stdout, stderr } = of(`${name} --help`);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(new RegExp(`^Usage: fastfreeze ${name}`));
    expect(stdout).toMatch(/\nExit status:\n/);
    expect(stdout).toMatch(/^ +2 +the command line is wrong/m);
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(110);
    expect(of(`${name} -h`)).toEqual(of(`${name} --help`));
  });

  test.each(COMMANDS)('of %s mentions every option that is parsed, and no other', (name) => {
    const source = readFileSync(new URL(`../../../src/cli/${name}.js`, import.meta.url), 'utf8');
    const parsed = [...source.matchAll(/'?([a-z][a-z0-9-]*)'?: \{ type: '(?:string|boolean)'(?:, short: '(.)')?/g)];
    expect(parsed.length).toBeGreaterThan(0);
    const { stdout } = of(`${name} --help`);
    const missing = parsed
      .filter(([, long = '', short]) => {
        const mention = short === undefined ? `(^|[ ,[])--${long}\\b` : `-${short}, --${long}\\b`;
        return !new RegExp(mention, 'm').test(stdout);
      })
      .map(([, long]) => long);
    expect(missing).toEqual([]);
    const options = stdout.slice(stdout.indexOf('\n\n'));
    const listed = [...options.matchAll(/^ +(?:-., )?--([a-z0-9-]+)/gm)].map(([, long]) => long ?? '');
    const known = new Set([...parsed.map(([, long]) => long ?? ''), 'help']);
    expect(listed.filter((long) => !known.has(long))).toEqual([]);
  });
});

describe('a wrong command line', () => {
  test.each(WRONG)('fastfreeze %s', (line, named) => {
    const { code, stdout, stderr } = of(line);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^Error: .*\nTry: /);
    for (const word of named) expect(stderr).toContain(word);
    expect(stderr).not.toMatch(/TypeError|\n {4}at /);
  });
});
