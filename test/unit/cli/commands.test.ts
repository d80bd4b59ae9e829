// SPDX-License-Identifier: Apache-2.0
/* Every command as a user types it, as far as it goes without a job. */
import { beforeAll, describe, expect, jest, test } from '@jest/globals';
import { existsSync, readFileSync } from 'node:fs';
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

/** Verbs of batch that have a help of their own, and the files of their options. */
const PRINTERS = ['job-definition', 'job'] as const;
const AWS = 'batch job-definition aws --name a --image i@sha256:0 --region eu-central-1 --image-base s3://bucket/j';
const GCP = 'batch job gcp --image i --image-base gs://bucket/j';

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
  ['batch explode', ['"explode"', 'run and explain', 'job-definition, job and rescue']],
  ['batch run --resubmit often cmd', ['--resubmit', '"often"']],
  ['batch job-definition', ['needs the word aws']],
  ['batch job-definition azure', ['needs the word aws', '"azure"']],
  ['batch job-definition aws cmd', ['--name is missing']],
  ['batch job-definition aws --platform fargate cmd', ['fargate', 'no container the rights', 'EC2 instances']],
  ['batch job-definition aws --platform moon cmd', ['--platform', '"moon"']],
  ['batch job-definition aws --name a/b cmd', ['--name', '"a/b"']],
  ['batch job-definition aws --name a cmd', ['--image is missing']],
  ['batch job-definition aws --name a --image i --image-base s3://bucket/j --memory 1 cmd', ['--region is missing']],
  [`${AWS} cmd`, ['--memory is missing']],
  [`${AWS} --memory 1`, ['no command']],
  [`${AWS} --memory much cmd`, ['--memory', '"much"']],
  [`${AWS} --memory 1 --image-base /shared cmd`, ['--image-base', '"/shared"', 'gone with the machine']],
  [`${AWS} --memory 1 --image-base bucket/j cmd`, ['neither a URL nor an absolute path']],
  [`${AWS} --memory 1 --vcpus 0 cmd`, ['--vcpus', '"0"']],
  [`${AWS} --memory 1 --attempts 11 cmd`, ['--attempts', '"11"', '1 to 10']],
  [`${AWS} --memory 1 --resubmit x cmd`, ['--resubmit', '"x"']],
  [`${AWS} --memory 1 --region Mars cmd`, ['--region', '"Mars"']],
  [`${AWS} --memory 1 --role solver cmd`, ['--role', '"solver"']],
  [`${AWS} --memory 1 --time-limit 59s cmd`, ['--time-limit', '"59s"', '60s or more']],
  [`${AWS} --memory 1 --time-limit 61.5s cmd`, ['--time-limit', 'whole seconds']],
  [`${AWS} --memory 1 --env 1=2 cmd`, ['--env', '"1=2"', 'NAME=VALUE']],
  [`${AWS} --memory 1 --env AWS_BATCH_X=2 cmd`, ['--env', 'for itself']],
  [`${AWS} --memory 1 --env FASTFREEZE_JOB_ID=x cmd`, ['--env', 'would be one']],
  [`${AWS} --memory 1 --env FASTFREEZE_TIME_LIMIT=9 cmd`, ['--env', 'an option of this command']],
  [`${AWS} --memory 1 --env A=1 --env A=2 cmd`, ['--env', 'given twice']],
  [`${AWS} --memory 1 --tag aws:x=1 cmd`, ['--tag', '"aws:x=1"']],
  [`${AWS} --memory 1 -- --time-limit 1h -- cmd`, ['--time-limit', 'before the first --']],
  [`${AWS} --memory 1 -- --job-id x cmd`, ['--job-id', 'would be one']],
  [`${AWS} --memory 1 -- --keeep 1 cmd`, ['--keeep']],
  [`${AWS} --memory 1 -- --requeue-exit-code 171 cmd`, ['--requeue-exit-code', '"171"']],
  ['batch job aws', ['needs the word gcp', '"aws"']],
  ['batch job gcp cmd', ['one of --image and --directory']],
  [`${GCP} --directory /opt --memory 1 cmd`, ['one of --image and --directory']],
  ['batch job gcp --directory opt cmd', ['--directory', '"opt"']],
  [`${GCP} --memory 1 --retries 11 cmd`, ['--retries', '"11"', '0 to 10']],
  [`${GCP} --memory 1 --tasks 0 cmd`, ['--tasks', '"0"']],
  [`${GCP} --memory 1 --provisioning cheap cmd`, ['--provisioning', '"CHEAP"']],
  [`${GCP} --memory 1 --machine-type N2 cmd`, ['--machine-type', '"N2"']],
  [`${GCP} --memory 1 --min-cpu-platform 1 cmd`, ['--min-cpu-platform', '"1"']],
  [`${GCP} --memory 1 --service-account me cmd`, ['--service-account', '"me"']],
  [`${GCP} --memory 1 --job-id a/b cmd`, ['--job-id', '"a/b"']],
  [`${GCP} --memory 1 --label Team=x cmd`, ['--label', '"Team=x"']],
  [`${GCP} --memory 1 --env BATCH_X=2 cmd`, ['--env', 'for itself']],
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
  ['install --bundle x.zip', ['x.zip', '.tar.xz']],
  ['install --json --bundle x.zip', ['x.zip', '.tar.xz']],
  ['install --from x --sha256 abc', ['abc', '64 hexadecimal digits']],
  ['install --json --from x --sha256 abc', ['abc', '64 hexadecimal digits']],
  ['doctor --jsno', ['--jsno']],
];

/** Definitions, and what of them is not as in batch-adapters/. */
const PRINTS = [
  `${AWS} --memory 512M --tag team=x --env A=b=c --resubmit 3 -- --requeue-exit-code 99 --keep 3 -- ./solve --fast`,
  `${GCP} --memory 2G --env A= --label team=x cmd`,
];

const lines = [
  '',
  '--help',
  '-h',
  'help',
  'help run',
  '--version',
  ...COMMANDS.flatMap((name) => [`${name} --help`, `${name} -h`]),
  ...PRINTERS.map((verb) => `batch ${verb} --help`),
  ...PRINTS,
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
    const files = [name, `${name}-options`].map((file) => new URL(`../../../src/cli/${file}.js`, import.meta.url));
    const source = files.filter((file) => existsSync(file)).map((file) => readFileSync(file, 'utf8'));
    const parsed = [
      ...source.join('').matchAll(/'?([a-z][a-z0-9-]*)'?: \{ type: '(?:string|boolean)'(?:, short: '(.)')?/g),
    ];
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

describe.each(PRINTERS)('help of batch %s', (verb) => {
  test('has usage and exit status, and every option that is parsed, and no other', () => {
    const { code, stdout, stderr } = of(`batch ${verb} --help`);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(new RegExp(`^Usage: fastfreeze batch ${verb} `));
    expect(stdout).toMatch(/\nExit status:\n/);
    const listed = [...stdout.matchAll(/^ +--([a-z0-9-]+)/gm)].map(([, name]) => name);
    const parsed = [`batch-${verb}`, 'definition-options'].flatMap((file) => {
      const source = readFileSync(new URL(`../../../src/cli/${file}.js`, import.meta.url), 'utf8');
      return [...source.matchAll(/'?([a-z][a-z0-9-]*)'?: \{ type: '(?:string|boolean)'/g)].map(([, name]) => name);
    });
    expect(listed.sort()).toEqual(parsed.sort());
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(90);
  });
});

describe('a definition of jobs', () => {
  test('of AWS Batch has what its options say, and says it the same way each time', () => {
    const { code, stdout, stderr } = of(PRINTS[0] ?? '');
    expect([code, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout)).toMatchObject({
      jobDefinitionName: 'a',
      retryStrategy: { evaluateOnExit: [{ onExitCode: '99', action: 'RETRY' }, {}, { onReason: '*', action: 'EXIT' }] },
      containerProperties: {
        command: ['--requeue-exit-code', '99', '--keep', '3', '--', './solve', '--fast'],
        resourceRequirements: [{ value: '1' }, { type: 'MEMORY', value: '512' }],
        environment: [
          { name: 'AWS_REGION', value: 'eu-central-1' },
          { name: 'FASTFREEZE_IMAGE_BASE', value: 's3://bucket/j' },
          { name: 'A', value: 'b=c' },
          { name: 'FASTFREEZE_RESUBMIT', value: '3' },
        ],
      },
      tags: { team: 'x' },
    });
    expect(stdout).not.toContain('timeout');
  });

  test('of Google Batch too; an image without a digest is warned of', () => {
    const { code, stdout, stderr } = of(PRINTS[1] ?? '');
    expect([code, stderr]).toEqual([0, expect.stringMatching(/^Warning: i is no digest: .*\nTry: /)]);
    expect(JSON.parse(stdout)).toMatchObject({
      taskGroups: [
        {
          taskCount: 1,
          taskSpec: {
            runnables: [
              {
                container: { imageUri: 'i', commands: ['cmd'] },
                environment: { variables: { FASTFREEZE_IMAGE_BASE: 'gs://bucket/j', A: '' } },
              },
            ],
            computeResource: { cpuMilli: 1000, memoryMib: 2048 },
          },
        },
      ],
      allocationPolicy: { instances: [{ policy: { provisioningModel: 'SPOT' } }] },
      labels: { team: 'x' },
    });
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
