// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import {
  type JobDirectory,
  claimJob,
  findJob,
  logDirectory,
  readToken,
  releaseJob,
  runningJobs,
  stateDirectory,
} from '../../../src/engine/state.js';
import { closeFd } from '../../../src/linux/fds.js';
import { askScript, makeDirectory, moduleUrl, scriptCommand, within } from '../linux/support.js';
import { until } from '../../support/until.js';

jest.setTimeout(40_000);

const isRoot = process.getuid?.() === 0;
let base = '';
const claimed: JobDirectory[] = [];
const before = process.env['FF_STATE_DIR'];

beforeEach(() => {
  base = join(makeDirectory(), 'state');
  process.env['FF_STATE_DIR'] = base;
});
afterEach(() => {
  claimed.splice(0).forEach((job) => releaseJob(job));
  if (before === undefined) delete process.env['FF_STATE_DIR'];
  else process.env['FF_STATE_DIR'] = before;
});

function claim(name: string): JobDirectory {
  const job = claimJob(name);
  claimed.push(job);
  return job;
}

describe('the state directory', () => {
  test('is made for its owner only', () => {
    expect(stateDirectory({ FF_STATE_DIR: base })).toBe(base);
    expect(statSync(base).mode & 0o777).toBe(0o700);
    expect(stateDirectory({ FF_STATE_DIR: base })).toBe(base);
  });

  test.each([0o755, 0o770, 0o701, 0o777])('is refused with mode %o', (mode) => {
    mkdirSync(base);
    chmodSync(base, mode);
    expect(() => stateDirectory({ FF_STATE_DIR: base })).toThrow(
      expect.objectContaining({
        code: 'conflict',
        subject: base,
        hint: expect.stringContaining('chmod 700') as unknown,
      }),
    );
  });

  test('is refused when it belongs to somebody else', () => {
    let foreign = '/usr';
    if (isRoot) {
      mkdirSync(base, { mode: 0o700 });
      chownSync(base, 12345, 12345);
      foreign = base;
    }
    expect(() => stateDirectory({ FF_STATE_DIR: foreign })).toThrow(/directory of your own/);
  });

  test('is refused when it is a symbolic link, even to a directory of our own', () => {
    const target = join(makeDirectory(), 'target');
    mkdirSync(target, { mode: 0o700 });
    symlinkSync(target, base);
    expect(() => stateDirectory({ FF_STATE_DIR: base })).toThrow(expect.objectContaining({ code: 'conflict' }));
    expect(readdirSync(target)).toEqual([]);
  });

  test('is refused when it is a file, or cannot be made: the one that was named is the one that is meant', () => {
    writeFileSync(base, '');
    expect(() => stateDirectory({ FF_STATE_DIR: base })).toThrow(base);
    expect(() => stateDirectory({ FF_STATE_DIR: join(base, 'below') })).toThrow(base);
  });

  test('of logs follows the environment', () => {
    expect(logDirectory({ FF_LOG_DIR: '/x' })).toBe('/x');
    const plain = logDirectory({ HOME: '/home/u' });
    expect(plain).toBe(isRoot ? '/var/log/fastfreeze' : '/home/u/.local/state/fastfreeze/log');
  });
});

describe('a claim', () => {
  test('makes a job that is found by name and as the only one, until it is released', () => {
    const job = claim('train');
    expect(statSync(job.path).mode & 0o777).toBe(0o700);
    writeFileSync(join(job.path, 'token'), 'secret\n');
    expect(runningJobs()).toEqual(['train']);
    expect(findJob('train')).toEqual({ name: 'train', path: job.path });
    expect(findJob(undefined).name).toBe('train');
    expect(readToken(job.path)).toBe('secret');
    releaseJob(claimed.pop() ?? job);
    expect(existsSync(job.path)).toBe(false);
    expect(runningJobs()).toEqual([]);
  });

  test('of a name that runs is a conflict', () => {
    claim('train');
    expect(() => claimJob('train')).toThrow(
      expect.objectContaining({ code: 'conflict', hint: expect.stringContaining('--container') as unknown }),
    );
    claim('other');
    expect(runningJobs()).toEqual(['other', 'train']);
    expect(() => findJob(undefined)).toThrow(/several are running: other, train/);
    expect(() => findJob('third')).toThrow(/running are: other, train/);
  });

  test('clears what a dead job left, and a dead job is not running', () => {
    const dead = claimJob('train');
    mkdirSync(join(dead.path, 'criu-x'));
    writeFileSync(join(dead.path, 'criu-x', 'dump.log'), '');
    writeFileSync(join(dead.path, 'token'), 'old');
    closeFd(dead.lockFd);
    expect(runningJobs()).toEqual([]);
    expect(() => findJob('train')).toThrow(/no job is running/);
    expect(() => findJob(undefined)).toThrow(expect.objectContaining({ code: 'not-found' }));
    const { path } = claim('train');
    expect(readdirSync(path)).toEqual(expect.arrayContaining(['lock']));
    for (const stale of ['criu-x', 'token']) expect(existsSync(join(path, stale))).toBe(false);
  });

  test('takes any name without leaving its folder', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }), (name) => {
        const job = claimJob(name);
        try {
          expect(join(job.path, '..')).toBe(base);
          expect(runningJobs()).toEqual([name]);
          expect(findJob(name).path).toBe(job.path);
        } finally {
          releaseJob(job);
        }
      }),
      { numRuns: 60 },
    );
    for (const name of ['.', '..', '../x', 'a/b', '%2e', 'lock']) expect(join(claim(name).path, '..')).toBe(base);
  });
});

describe('claims of several processes', () => {
  const script = (body: string): string => `
    import { claimJob, releaseJob, runningJobs } from '${moduleUrl('engine/state.js')}';
    ${body}`;

  test('of one name at the same moment: exactly one gets it', async () => {
    mkdirSync(base, { mode: 0o700 });
    const contenders = Array.from({ length: 6 }, () => contender());
    await Promise.all(contenders.map((one) => one.says('ready')));
    for (const one of contenders) one.child.stdin.write('go\n');
    const answers = await Promise.all(contenders.map((one) => one.says(/claimed|conflict/)));
    for (const one of contenders) one.child.stdin.end();
    await Promise.all(contenders.map((one) => one.ended));
    expect(answers.filter((answer) => answer.includes('claimed')).length).toBe(1);
    expect(runningJobs()).toEqual([]);
  });

  test('a job whose process is killed has ended', async () => {
    const one = contender();
    await one.says('ready');
    one.child.stdin.write('go\n');
    await one.says('claimed');
    expect(runningJobs()).toEqual(['twin']);
    one.child.kill('SIGKILL');
    await one.ended;
    expect(runningJobs()).toEqual([]);
    claim('twin');
  });

  test('asking what runs is never in the way of a job that starts', async () => {
    mkdirSync(base, { mode: 0o700 });
    const asking = askScript(
      script(`
        const end = Date.now() + 1500;
        let asked = 0;
        while (Date.now() < end) { runningJobs(); asked++; }
        console.log(asked);`),
    );
    const failures = await askScript(
      script(`
        const failures = [];
        const end = Date.now() + 1500;
        while (Date.now() < end) {
          try { releaseJob(claimJob('train')); } catch (error) { failures.push(error.message); }
        }
        console.log(JSON.stringify([...new Set(failures)]));`),
    );
    expect(Number(await asking)).toBeGreaterThan(0);
    expect(failures).toEqual([]);
  });

  function contender(): {
    child: ChildProcessWithoutNullStreams;
    says: (what: string | RegExp) => Promise<string>;
    ended: Promise<unknown>;
  } {
    const [file = '', ...args] = scriptCommand(
      script(`
        console.log('ready');
        let job;
        process.stdin.once('data', () => {
          try { job = claimJob('twin'); console.log('claimed'); } catch (error) { console.log(error.code); }
        });
        process.stdin.on('end', () => { if (job !== undefined) releaseJob(job); });`),
    );
    const child = spawn(file, args, { env: { ...process.env, NODE_OPTIONS: '' } });
    let text = '';
    child.stdout.on('data', (piece: Buffer) => (text += piece.toString()));
    child.stderr.on('data', (piece: Buffer) => (text += piece.toString()));
    const ended = within('its end', once(child, 'exit'), 30_000);
    const matches = (what: string | RegExp): boolean =>
      typeof what === 'string' ? text.includes(what) : what.test(text);
    return {
      child,
      ended,
      says: (what) =>
        until(
          String(what),
          () => matches(what) && text,
          20_000,
          () => text,
        ),
    };
  }
});
